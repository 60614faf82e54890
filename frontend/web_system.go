package frontend

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/co2relay/co2relay/cluster"
)

// workingRoles are those that share the partitions out.
var workingRoles = []string{"delivery", "pinger"}

// clusterState is how processes, partitions and broker are.
type clusterState struct {
	workers   []cluster.Worker
	owners    map[string][]cluster.PartitionRecord // by role, without their states
	broker    cluster.BrokerState
	brokerErr error
}

func (f *Frontend) loadClusterState(ctx context.Context) (clusterState, error) {
	var s clusterState
	var err error
	if s.workers, err = f.clus.Workers(ctx); err != nil {
		return s, err
	}
	s.owners = make(map[string][]cluster.PartitionRecord)
	for _, role := range workingRoles {
		records, err := f.clus.PartitionRecords(ctx, role)
		if err != nil {
			return s, err
		}
		for i := range records {
			records[i].State = nil
		}
		s.owners[role] = records
	}
	s.broker, s.brokerErr = f.clus.Broker(ctx)
	return s, nil
}

// processView is one process of the relay.
type processView struct {
	Name, Roles, Release, Up string
	CPU, Memory              string
	Connections, Partitions  int
}

// roleView is how the partitions of a role are shared out.
type roleView struct {
	Role    string
	Workers []workerView
	Cells   []cellView
	Free    int
}

type workerView struct {
	Name  string
	Class string
	Owns  int
	Late  bool // its lease is not renewed
}

type cellView struct {
	Partition   int
	Class, Text string
}

// systemView is what moves on the system page.
type systemView struct {
	Processes []processView
	Roles     []roleView
	Broker    *cluster.BrokerState
	Answers   string // in what time the broker does
	Nodes     []brokerNode
	Unread    bool
}

func (f *Frontend) systemOf(ctx context.Context) *systemView {
	v := &systemView{}
	for _, p := range f.history.processes() {
		v.Processes = append(v.Processes, processView{
			Name: p.Process, Roles: strings.Join(p.Roles, ", "), Release: p.Release, Up: durationText(time.Since(p.Started)),
			CPU: fmt.Sprintf("%.1f%%", p.CPU*100), Memory: sizeText(p.Memory), Connections: p.Connections, Partitions: p.Partitions,
		})
	}
	s, err := f.clusterState.Get(ctx)
	if err != nil {
		v.Unread = true
		f.log.Warn("system page without the cluster's state", "error", err)
		return v
	}
	v.Roles = rolesOf(&s)
	if s.brokerErr == nil {
		v.Broker, v.Nodes = &s.broker, nodesOf(&s.broker)
		v.Answers = roundTripText(float64(s.broker.RoundTrip) / float64(time.Millisecond))
	}
	return v
}

func (f *Frontend) systemPage(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
	defer cancel()
	f.page(w, http.StatusOK, "system", struct {
		frame
		*systemView
		Limits []fact
		Facts  []fact
	}{f.frame("system"), f.systemOf(ctx), f.limitFacts(ctx), f.propertyFacts()})
}

// workerColours is how many workers have a colour of their own.
const workerColours = 6

func rolesOf(s *clusterState) []roleView {
	var all []roleView
	for _, role := range workingRoles {
		all = append(all, roleOf(role, s))
	}
	return all
}

func roleOf(role string, s *clusterState) roleView {
	v := roleView{Role: role, Cells: make([]cellView, cluster.Partitions)}
	index := make(map[string]int)
	for _, w := range s.workers {
		if w.Role != role {
			continue
		}
		index[w.ID] = len(v.Workers)
		name := w.Name
		if name == "" {
			name = w.ID
		}
		v.Workers = append(v.Workers, workerView{
			Name: name, Class: fmt.Sprintf("w%d", len(v.Workers)%workerColours), Late: time.Since(w.Renewed) > 5*time.Second,
		})
	}
	for p := range v.Cells {
		v.Cells[p] = cellView{Partition: p, Class: "none", Text: fmt.Sprintf("partition %d: nobody", p)}
	}
	for _, r := range s.owners[role] {
		if i, found := index[r.Owner]; found {
			v.Workers[i].Owns++
			v.Cells[r.Partition] = cellView{r.Partition, v.Workers[i].Class, fmt.Sprintf("partition %d: %s", r.Partition, v.Workers[i].Name)}
		}
	}
	for _, c := range v.Cells {
		if c.Class == "none" {
			v.Free++
		}
	}
	return v
}

// brokerNode is a node of the broker as its streams show it.
type brokerNode struct {
	Name   string
	Leads  []string
	Behind []string
}

func nodesOf(s *cluster.BrokerState) []brokerNode {
	byName := make(map[string]*brokerNode)
	node := func(name string) *brokerNode {
		if byName[name] == nil {
			byName[name] = &brokerNode{Name: name}
		}
		return byName[name]
	}
	if s.Server != "" {
		node(s.Server)
	}
	for _, st := range s.Streams {
		if st.Leader != "" {
			n := node(st.Leader)
			n.Leads = append(n.Leads, st.Name)
		}
		for _, name := range st.Behind {
			n := node(name)
			n.Behind = append(n.Behind, st.Name)
		}
	}
	var all []brokerNode
	for _, n := range byName {
		all = append(all, *n)
	}
	slices.SortFunc(all, func(a, b brokerNode) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// limitFacts are the limits that a client may meet.
func (f *Frontend) limitFacts(ctx context.Context) []fact {
	c := &f.cfg
	satellites := "–"
	if n, err := f.maxSats.Get(ctx); err == nil {
		satellites = number10(n)
	}
	perAddr := "no limit"
	if c.MaxSatsPerAddr > 0 {
		perAddr = number10(c.MaxSatsPerAddr)
	}
	return []fact{
		{"Satellites", satellites},
		{"Satellites of one address", perAddr},
		{"Body of a call", sizeText(c.MaxBody)},
		{"Body when inflated", sizeText(c.MaxInflated)},
		{"Answer", sizeText(c.MaxAnswer)},
		{"Nesting of values", number10(c.MaxDepth)},
		{"Values in a call", number10(c.MaxValues)},
		{"Header", sizeText(c.MaxHeader)},
		{"Connections of one address", number10(c.MaxConnsPerAddr)},
		{"Connections in all", number10(c.MaxConns)},
		{"Time for a header, a body", c.HeaderTimeout.String() + ", " + c.BodyTimeout.String()},
		{"Time until a relay call is in doubt", c.PublishTimeout.String()},
	}
}
