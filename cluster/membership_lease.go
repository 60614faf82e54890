package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// storedLease is a lease as JSON. Owns is a hint for the others' plans; what is true of a partition stands in its record.
type storedLease struct {
	Version int         `json:"v"`
	Name    string      `json:"name"`
	Owns    [][2]uint64 `json:"owns"` // partition and epoch
}

// leaseKey is "<role>.<id>".
func leaseKey(role, id string) string { return role + "." + id }

func leaseOfKey(role, key string) (id string, ok bool) {
	id, ok = strings.CutPrefix(key, role+".")
	return id, ok && id != ""
}

// keepLease renews the lease each second while the holder makes progress.
func (m *Member) keepLease(ctx context.Context) {
	seen, seenAt := m.progress.Load(), m.clock.now()
	stalled := false
	for {
		if n := m.progress.Load(); n != seen {
			seen, seenAt = n, m.clock.now()
		}
		wait := leaseEvery
		if silent := m.clock.now() - seenAt; silent <= stallAfter {
			stalled = false
			if err := m.renew(ctx); err != nil && ctx.Err() == nil {
				wait = leaseRetry
				m.log.Warn("renewing the lease failed, trying again", "error", err)
			}
		} else if !stalled {
			stalled = true
			m.log.Error("no progress, the lease is not renewed", "silent", silent.String())
		}
		next, stop := m.clock.after(wait)
		select {
		case <-ctx.Done():
			stop()
			return
		case <-next:
		case <-m.renewNow:
		}
		stop()
	}
}

// renew writes the lease. It holds from before it was sent: whatever the broker and the network took is lost, never gained.
func (m *Member) renew(ctx context.Context) error {
	m.renewing.Lock()
	defer m.renewing.Unlock()
	if m.left {
		return nil
	}
	changed := m.changed.Swap(false)
	b, err := m.lease()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, m.try)
	defer cancel()
	sent := m.clock.now()
	revision, err := m.workers.PutAny(ctx, leaseKey(m.role, m.id), b)
	if err != nil {
		m.changed.Store(changed)
		return fmt.Errorf("renew lease %s: %w", m.id, err)
	}
	m.mu.Lock()
	first, gap := m.renewed == 0, sent-m.renewed
	m.renewed, m.revision = sent, revision
	until := time.Duration(m.until.Load())
	switch {
	case m.lapsing: // settleLapse extends it when it is done
	case until > 0 && m.clock.now() >= until: // lapsed, and the holder does not know yet
		signal(m.wake)
	default:
		m.extend()
	}
	m.mu.Unlock()
	signal(m.wake)
	m.announce(first, gap)
	if changed || first {
		m.nudge()
	}
	return nil
}

// publishOwned has the lease say soon what is owned now, and then the others look.
func (m *Member) publishOwned() {
	m.changed.Store(true)
	signal(m.renewNow)
}

// announce emits worker_joined for a lease that is new, or that the others must have taken for over.
func (m *Member) announce(first bool, gap time.Duration) {
	reason := "started"
	switch {
	case first:
		m.log.Info("joined", "role", m.role)
		signal(m.poll)
	case gap > deadAfter:
		reason = fmt.Sprintf("back after %s without a renewal", gap.Round(100*time.Millisecond))
	default:
		return
	}
	m.emit(Event{Kind: kindWorkerJoined, Reason: reason})
}

// emit sends an event of this member's role. Nothing waits for it.
func (m *Member) emit(e Event) {
	if e.Worker == "" {
		e.Worker = m.id
	}
	e.Reason = m.role + ": " + e.Reason
	m.clus.Emit(e)
}

// lease is what the record says of this member: what it owns, and what it lost by a lapse and will claim again, so that the
// others leave that to it.
func (m *Member) lease() ([]byte, error) {
	l := storedLease{Version: schemaVersion, Name: m.name, Owns: [][2]uint64{}}
	m.mu.Lock()
	for p, h := range m.owned {
		l.Owns = append(l.Owns, [2]uint64{uint64(p), h.epoch})
	}
	for p, epoch := range m.had {
		l.Owns = append(l.Owns, [2]uint64{uint64(p), epoch})
	}
	m.mu.Unlock()
	slices.SortFunc(l.Owns, func(a, b [2]uint64) int { return int(a[0]) - int(b[0]) })
	b, err := json.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("encode lease %s: %w", m.id, err)
	}
	return b, nil
}

// endLease deletes the lease, so that the others need not wait for its end.
func (m *Member) endLease(ctx context.Context) error {
	m.renewing.Lock()
	defer m.renewing.Unlock()
	m.left = true
	m.until.Store(0)
	item, err := m.workers.Get(ctx, leaseKey(m.role, m.id))
	if errors.Is(err, ErrNotFound) || err == nil && item.Deleted {
		return nil
	}
	if err == nil {
		_, err = m.workers.Delete(ctx, item.Key, item.Revision)
	}
	if err != nil {
		return fmt.Errorf("end lease %s: %w", m.id, err)
	}
	m.emit(Event{Kind: kindWorkerLeft, Reason: "stopped"})
	return nil
}

// nudge has the other members poll now. It is best effort: they poll each second anyway.
func (m *Member) nudge() {
	if err := m.clus.nc.Publish(memberSubject+m.role, []byte(m.id)); err != nil {
		m.log.Debug("nudging the other members failed", "error", err)
	}
}
