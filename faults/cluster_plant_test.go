package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/internal/freeport"
)

// plant is a whole installation: three brokers, and each role in processes of
// its own.
type plant struct {
	t         *testing.T
	nodes     []*node
	frontends []*role
	workers   []*role
	pingers   []*role
	options   plantOptions
	via       *node    // what is started from now on is told of this broker only; nil: of all
	under     []string // the command under which what is started from now on runs; nil: none
	asking    *cluster.Cluster
}

// role is one process of the relay.
type role struct {
	*process
	kind   string
	listen string // of a frontend
	admin  string
	broken bool // by a test that walks at random, and not mended yet
}

func (r *role) url() string { return "http://" + r.listen + "/RPC2" }

// ready is what the process says of itself to load balancers.
func (r *role) ready() bool {
	resp, err := shortly.Get("http://" + r.admin + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// begun says that the process has got as far as its admin port: before it heeds
// signals, nobody can ask it to stop in order.
func (r *role) begun() bool {
	c, err := net.Dial("tcp", r.admin)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// plantOptions say what startPlant starts.
type plantOptions struct {
	frontends, workers, pingers int
	flags, pingerFlags          []string // of every role; of pingers
	change                      func(i int, n *node)
}

// startPlant starts everything and waits until all of it is ready.
func startPlant(t *testing.T, o plantOptions) *plant {
	t.Helper()
	program, err := natsServer()
	if err != nil {
		t.Fatal(err)
	}
	p := &plant{t: t, options: o}
	dir := t.TempDir()
	var routes []string
	for i := range 3 {
		n := &node{client: freeport.Addr(t), route: freeport.Addr(t), monitor: freeport.Addr(t), dir: filepath.Join(dir, fmt.Sprint("n", i))}
		n.process = newProcess(t, fmt.Sprint("n", i), program, "-c", filepath.Join(dir, fmt.Sprint("n", i, ".conf")))
		if o.change != nil {
			o.change(i, n)
		}
		reach := n.route
		if n.advertise != "" {
			reach = n.advertise
		}
		routes = append(routes, fmt.Sprintf("%q", "nats://"+reach))
		p.nodes = append(p.nodes, n)
	}
	for _, n := range p.nodes {
		n.configure(strings.Join(routes, ", "))
		n.start()
	}
	for range o.frontends {
		p.addFrontend()
	}
	for range o.workers {
		p.addWorker()
	}
	for range o.pingers {
		p.addPinger()
	}
	p.waitReady()
	return p
}

func (p *plant) addFrontend() *role {
	p.t.Helper()
	r := p.role("frontend", len(p.frontends))
	p.frontends = append(p.frontends, r)
	return r
}

func (p *plant) addWorker(flags ...string) *role {
	p.t.Helper()
	r := p.role("delivery", len(p.workers), flags...)
	p.workers = append(p.workers, r)
	return r
}

func (p *plant) addPinger() *role {
	p.t.Helper()
	r := p.role("pinger", len(p.pingers), p.options.pingerFlags...)
	p.pingers = append(p.pingers, r)
	return r
}

// role starts a process; it does not wait for it.
func (p *plant) role(kind string, i int, flags ...string) *role {
	p.t.Helper()
	r := &role{kind: kind, admin: freeport.Addr(p.t)}
	name, urls := fmt.Sprint(kind, i), p.urls()
	if p.via != nil {
		urls = p.via.url()
	}
	args := []string{kind, "--nats", urls, "--replicas", "3", "--name", name, "--admin", r.admin}
	if kind == "frontend" {
		r.listen = freeport.Addr(p.t)
		args = append(args, "--listen", r.listen)
	}
	args = slices.Concat(p.under, []string{binary}, args, p.options.flags, flags)
	r.process = newProcess(p.t, name, args[0], args[1:]...)
	r.start()
	return r
}

func (p *plant) urls() string {
	var urls []string
	for _, n := range p.nodes {
		urls = append(urls, n.url())
	}
	return strings.Join(urls, ",")
}

func (p *plant) roles() []*role {
	return append(append(append([]*role(nil), p.frontends...), p.workers...), p.pingers...)
}

// waitReady waits until every process that runs is ready, and every partition
// has an owner that lives.
func (p *plant) waitReady() {
	p.t.Helper()
	for _, r := range p.roles() {
		if r.running() {
			eventually(p.t, r.name+" is ready", r.ready)
		}
	}
	if len(p.workers) > 0 {
		eventually(p.t, "every partition is owned", func() bool { return p.balanced("delivery", p.workers) })
	}
	if len(p.pingers) > 0 {
		eventually(p.t, "every partition is pinged", func() bool { return p.balanced("pinger", p.pingers) })
	}
}

// client is this test's own connection to the broker.
func (p *plant) client() *cluster.Cluster {
	p.t.Helper()
	if p.asking == nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		c, err := cluster.Connect(ctx, cluster.Options{URLs: strings.Split(p.urls(), ","), Name: "faults"}, hclog.NewNullLogger())
		if err != nil {
			p.t.Fatal(err)
		}
		p.asking = c
		p.t.Cleanup(c.Close)
	}
	return p.asking
}

// owners tells which process owns each partition.
func (p *plant) owners(kind string) (map[int]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	records, err := p.client().PartitionRecords(ctx, kind)
	if err != nil {
		return nil, err
	}
	owners := make(map[int]string)
	for _, r := range records {
		if i := strings.LastIndexByte(r.Owner, '-'); i > 0 {
			owners[r.Partition] = r.Owner[:i] // without the nonce of the process
		}
	}
	return owners, nil
}

// balanced says that the running processes of a kind own all partitions, in
// shares that differ by one at most.
func (p *plant) balanced(kind string, all []*role) bool {
	owners, err := p.owners(kind)
	if err != nil || len(owners) != cluster.Partitions {
		return false
	}
	share := make(map[string]int)
	for _, owner := range owners {
		share[owner]++
	}
	n := 0
	for _, r := range all {
		if r.running() {
			n++
		}
	}
	for _, r := range all {
		if r.running() && share[r.name] < cluster.Partitions/n || !r.running() && share[r.name] > 0 {
			return false
		}
	}
	return true
}

// streamState is what a node's monitoring says about a stream.
type streamState struct {
	Name    string `json:"name"`
	Cluster struct {
		Leader string `json:"leader"`
	} `json:"cluster"`
	State struct {
		Bytes    uint64 `json:"bytes"`
		Messages uint64 `json:"messages"`
	} `json:"state"`
	Consumers []consumerState `json:"consumer_detail"`
}

type consumerState struct {
	Name string `json:"name"`
}

// streams asks a node's own monitoring, so that no judgement rests on the code
// under test.
func (n *node) streams() (all []streamState, err error) {
	resp, err := shortly.Get("http://" + n.monitor + "/jsz?streams=true&consumers=true")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Accounts []struct {
			Streams []streamState `json:"stream_detail"`
		} `json:"account_details"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	for _, a := range answer.Accounts {
		all = append(all, a.Streams...)
	}
	return all, nil
}

func (n *node) stream(name string) (streamState, error) {
	all, err := n.streams()
	if err != nil {
		return streamState{}, err
	}
	for _, s := range all {
		if s.Name == name {
			return s, nil
		}
	}
	return streamState{}, fmt.Errorf("%s has no stream %s", n.name, name)
}

// leader is the node that leads a stream.
func (p *plant) leader(stream string) *node {
	p.t.Helper()
	var leader *node
	eventually(p.t, "the stream "+stream+" has a leader", func() bool {
		for _, n := range p.nodes {
			if !n.running() {
				continue
			}
			if s, err := n.stream(stream); err == nil && s.Cluster.Leader == n.name {
				leader = n
				return true
			}
		}
		return false
	})
	return leader
}

// whole waits until all nodes run and have caught up.
func (p *plant) whole() {
	p.t.Helper()
	for _, n := range p.nodes {
		eventually(p.t, n.name+" is healthy", n.healthy)
	}
}
