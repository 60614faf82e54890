package faults

import (
	"context"
	"slices"
	"sync"
	"time"
)

// electionMost is how long a NATS stream waits for a leader of whom nothing is
// heard, not even that its connection broke, before another is elected
// (nats-server, raft.go: 4 to 9 s).
const electionMost = 9 * time.Second

// afterElection is how soon service goes on once the broker has its leaders. A
// node that led the leases' bucket takes all leases along: workers claim anew.
const afterElection = 3 * time.Second

// led are the streams without whose leaders nothing is relayed or delivered. Each
// has an election of its own.
var led = []string{"RELAY", "KV_SATELLITES", "KV_WORKERS", "KV_PARTITIONS"}

// watchElections watches until it is asked, once: how long it took, from now, until
// the nodes had elected the leaders of all that matters. Of a node that is or will be
// unreachable (without; nil: none) nothing is asked.
func (p *plant) watchElections(without *node) (elected func() time.Duration) {
	began := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	var took time.Duration
	var watching sync.WaitGroup
	watching.Go(func() {
		for ctx.Err() == nil {
			if p.leaderless(without) {
				took = time.Since(began)
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	p.t.Cleanup(cancel)
	return func() time.Duration {
		cancel()
		watching.Wait()
		return took.Round(10 * time.Millisecond)
	}
}

// leaderless says that every node answered and none of them leads one of the streams
// that matter. A node that does not answer proves nothing.
func (p *plant) leaderless(without *node) bool {
	leaders := make(map[string]bool)
	for _, n := range p.nodes {
		if n == without {
			continue
		}
		streams, err := n.streams()
		if err != nil {
			return false
		}
		for _, s := range streams {
			if s.Cluster.Leader == n.name {
				leaders[s.Name] = true
			}
		}
	}
	return slices.ContainsFunc(led, func(stream string) bool { return !leaders[stream] })
}

// orElected is a bound of the pause in service: the broker's elections are as long
// as chance has it, and it is theirs that is waited for if they take longer.
func orElected(most, elected time.Duration) time.Duration { return max(most, elected+afterElection) }
