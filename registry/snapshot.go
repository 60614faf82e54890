package registry

import (
	"context"
	"errors"

	"github.com/co2relay/co2relay/cluster"
)

// Snapshot is the figures of all satellites, each partition's as last written.
type Snapshot struct {
	traffic [cluster.Partitions]trafficIndex
	pings   [cluster.Partitions]pingIndex
}

// Snapshot reads the figures of all satellites, at most half a second older
// than they stand in the broker. What cannot be read is as it was last read, and
// the error says so: the snapshot is usable all the same.
func (r *Registry) Snapshot(ctx context.Context) (*Snapshot, error) {
	s := new(Snapshot)
	var errs []error
	for p := range cluster.Partitions {
		var err, pingsErr error
		s.traffic[p], err = r.traffic[p].Get(ctx)
		s.pings[p], pingsErr = r.pings[p].Get(ctx)
		errs = append(errs, err, pingsErr)
	}
	return s, errors.Join(errs...)
}

// Figures gives a satellite's figures, as Registry.Figures does.
func (s *Snapshot) Figures(sat *Satellite) Figures {
	p := sat.ID.Partition()
	return figuresOf(sat, &s.traffic[p], &s.pings[p])
}

// figuresOf picks a satellite's figures out of the records of its partition.
func figuresOf(sat *Satellite, traffic *trafficIndex, pings *pingIndex) Figures {
	f := Figures{
		Traffic: Traffic{ID: sat.ID, Generation: sat.Generation, Position: sat.Began},
		Ping:    Ping{ID: sat.ID, Generation: sat.Generation, Current: -1},
	}
	if t, ok := traffic.byID[sat.ID]; ok && t.Generation >= sat.Generation {
		f.Traffic = *t
	}
	if p, ok := pings.byID[sat.ID]; ok && p.Generation >= sat.Generation {
		f.Ping = *p
	}
	f.Owed = f.Traffic.Owed(traffic.readTo)
	return f
}

// Known tells whether the figures of a satellite's partition were ever read.
func (s *Snapshot) Known(sat *Satellite) bool { return s.traffic[sat.ID.Partition()].byID != nil }

// All gives every satellite of the view, in no order.
func (r *Registry) All() []*Satellite {
	all := make([]*Satellite, 0, r.Len())
	r.view.each(func(s *Satellite) { all = append(all, s) })
	return all
}

// Find gives a satellite's records and what it is owed; a record is nil where
// none was written of its present generation. They are shared: do not change
// them.
func (s *Snapshot) Find(sat *Satellite) (t *Traffic, p *Ping, owed int64) {
	i := sat.ID.Partition()
	if t = s.traffic[i].byID[sat.ID]; t != nil && t.Generation < sat.Generation {
		t = nil
	}
	if p = s.pings[i].byID[sat.ID]; p != nil && p.Generation < sat.Generation {
		p = nil
	}
	if t == nil {
		none := Traffic{Position: sat.Began}
		return nil, p, none.Owed(max(s.traffic[i].readTo, sat.Began))
	}
	return t, p, t.Owed(s.traffic[i].readTo)
}
