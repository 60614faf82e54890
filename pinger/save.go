package pinger

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

const (
	saveTick  = 100 * time.Millisecond
	saveEvery = time.Second // up to 10,000 satellites; beyond, the bytes written stay the same
	saveFor   = 5 * time.Second
	freshUpTo = 10_000
)

// book is how a partition's figures are written.
type book struct {
	changed  bool // since the last snapshot
	readOnly bool // the record is of a schema that this program must not overwrite, or another owner's
	savedAt  time.Time

	writing  sync.Mutex // one write at a time; guards revision
	revision uint64     // of the record
}

// saveLoop writes figures down, at most once a second and partition.
func (p *Pinger) saveLoop(ctx context.Context) {
	tick := time.NewTicker(saveTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !p.member.Alive() {
			continue
		}
		for _, pt := range p.dueBooks(time.Now()) {
			try, cancel := context.WithTimeout(pt.ctx, saveFor)
			p.save(try, pt)
			cancel()
		}
	}
}

func (p *Pinger) dueBooks(now time.Time) (due []*part) {
	p.mu.Lock()
	defer p.mu.Unlock()
	every := saveEvery * time.Duration(1+p.owned/freshUpTo)
	for _, pt := range p.parts {
		if pt != nil && pt.changed && !pt.draining && now.Sub(pt.savedAt) >= every {
			pt.savedAt = now
			due = append(due, pt)
		}
	}
	return due
}

// save writes one partition's figures, if they have changed, and tells whether
// that worked.
func (p *Pinger) save(ctx context.Context, pt *part) bool {
	pt.writing.Lock()
	defer pt.writing.Unlock()
	record, changed := p.snapshot(pt)
	if !changed {
		return true
	}
	revision, err := p.reg.SavePing(ctx, record, pt.revision)
	if errors.Is(err, cluster.ErrWrongRevision) {
		revision, err = p.saveOver(ctx, pt, record)
	}
	if err == nil {
		pt.revision = revision
		return true
	}
	p.mu.Lock()
	pt.changed = true
	p.mu.Unlock()
	if pt.ctx.Err() == nil {
		p.log.Warn("saving ping figures failed, trying again", "partition", pt.id, "error", err)
	}
	return false
}

// saveOver finds out what stands in the way: an earlier write of ours whose
// answer never came, or of an owner before us, is overwritten; a later owner's
// stays.
func (p *Pinger) saveOver(ctx context.Context, pt *part, record registry.PingRecord) (uint64, error) {
	stored, revision, err := p.reg.LoadPing(ctx, pt.id)
	if err != nil {
		return 0, err
	}
	if stored.Epoch > pt.epoch {
		p.mu.Lock()
		pt.readOnly = true
		p.mu.Unlock()
		return revision, nil
	}
	return p.reg.SavePing(ctx, record, revision)
}

func (p *Pinger) snapshot(pt *part) (registry.PingRecord, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !pt.changed || pt.readOnly || pt.targets == nil {
		return registry.PingRecord{}, false
	}
	pt.changed = false
	r := registry.PingRecord{Partition: pt.id, Epoch: pt.epoch, Satellites: make([]registry.Ping, 0, len(pt.targets))}
	for _, t := range pt.targets {
		if t.fig.Count > 0 {
			r.Satellites = append(r.Satellites, t.fig)
		}
	}
	for _, f := range pt.early { // of satellites that our view does not have yet, or not any more
		r.Satellites = append(r.Satellites, f)
	}
	return r, true
}
