package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Worker is a member of a role as its lease shows it.
type Worker struct {
	Role, ID, Name string
	// Renewed is when the broker stored the last renewal. A live worker renews each second; a dead one's lease stays until
	// another member buries it.
	Renewed time.Time
}

// Workers reads every lease that stands, by role and id.
func (c *Cluster) Workers(ctx context.Context) ([]Worker, error) {
	items, err := c.Bucket(BucketWorkers).List(ctx)
	if err != nil {
		return nil, fmt.Errorf("read workers: %w", err)
	}
	var workers []Worker
	for _, item := range items {
		role, id, ok := strings.Cut(item.Key, ".")
		if !ok || item.Deleted {
			continue
		}
		w := Worker{Role: role, ID: id, Renewed: item.Created}
		var lease storedLease
		if json.Unmarshal(item.Value, &lease) == nil {
			w.Name = lease.Name
		}
		workers = append(workers, w)
	}
	slices.SortFunc(workers, func(a, b Worker) int { return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.ID, b.ID)) })
	return workers, nil
}

// BrokerState is how the broker is, as seen from this connection.
type BrokerState struct {
	Server    string // name of the server that this connection is to
	Version   string
	Cluster   string // "" on one node
	RoundTrip time.Duration
	Streams   []StreamState
}

// StreamState is one stream of the layout, buckets included.
type StreamState struct {
	Name            string
	Messages, Bytes uint64
	Leader          string   // "" on one node, or while there is none
	Replicas        int      // copies that there should be
	Behind          []string // other nodes whose copy is not current, or that are away
}

// Broker asks how the broker is. The streams come in the order of the layout.
func (c *Cluster) Broker(ctx context.Context) (BrokerState, error) {
	s := BrokerState{Server: c.nc.ConnectedServerName(), Version: c.nc.ConnectedServerVersion(), Cluster: c.nc.ConnectedClusterName()}
	for _, cfg := range streams(Layout{}) {
		began := time.Now()
		info, err := c.streamInfo(ctx, cfg.Name)
		if err != nil {
			return s, err
		}
		s.RoundTrip = time.Since(began)
		st := StreamState{Name: cfg.Name, Messages: info.State.Msgs, Bytes: info.State.Bytes, Replicas: info.Config.Replicas}
		if info.Cluster != nil && info.Config.Replicas > 1 {
			st.Leader = info.Cluster.Leader
			for _, r := range info.Cluster.Replicas {
				if r.Offline || !r.Current {
					st.Behind = append(st.Behind, r.Name)
				}
			}
		}
		s.Streams = append(s.Streams, st)
	}
	return s, nil
}
