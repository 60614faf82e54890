package delivery

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

// events gives what the event stream holds about a satellite and kind.
func (b *bed) events(kind string, id registry.ID) (found []cluster.Event) {
	b.t.Helper()
	all, err := b.clus.PastEvents(b.t.Context(), time.Now().Add(-time.Hour))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range all {
		if e.Kind == kind && e.Satellite == string(id) {
			found = append(found, e)
		}
	}
	return found
}

func (b *bed) last() uint64 {
	b.t.Helper()
	last, err := b.clus.Log().Last(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return last
}

func (b *bed) stored(sat *registry.Satellite) Progress {
	b.t.Helper()
	records, err := b.clus.PartitionRecords(b.t.Context(), "delivery")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, r := range records {
		if r.Partition == sat.ID.Partition() {
			at, err := Position(r.State, sat)
			if err != nil {
				b.t.Fatal(err)
			}
			return at
		}
	}
	return Progress{}
}

// ask asks until it is done: the owner may be kept from writing it down, or have
// lost its lease for a moment.
func (b *bed) ask(sat *registry.Satellite, q cluster.Question) (a cluster.Answer, tries int) {
	b.t.Helper()
	b.eventually("the question is answered", func() (ok bool) {
		tries++
		ctx, cancel := context.WithTimeout(b.t.Context(), patience)
		defer cancel()
		var err error
		if a, err = b.clus.Ask(ctx, sat.ID.Partition(), q); err != nil {
			b.t.Log(err)
		}
		return err == nil
	})
	return a, tries
}

func TestASkipEndsWhatIsOwedAndIsWrittenBeforeItsAnswer(t *testing.T) {
	t.Parallel()
	for name, down := range map[string]satellitetest.Mode{"down": satellitetest.Down, "with a call under way": satellitetest.Hang} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.cfg.NotifyTimeout = 20 * time.Second
			_, stop := b.worker()
			sick := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: down}})
			sender := b.registerAt(mustAddr("127.0.0.1:9"), "").ID
			sat := b.register(sick, "")
			b.publish(sender, 30)
			b.publish(sat.ID, 5) // its own, which it is not owed
			b.publish(sender, 10)
			b.balance(registry.Totals{Recipients: 45})
			last := b.last()
			q := cluster.Question{Kind: cluster.QuestionSkip, Satellite: string(sat.ID), Generation: sat.Generation, To: last - 5}
			a, tries := b.ask(sat, q)
			whole := a.Count == 35 && a.Last == last-5 && a.First == last-44
			if done := a.Count == 0 && tries > 1; !whole && !done || a.Position != last-5 {
				t.Fatalf("skip: got %+v after %d tries; want 35 messages from %d to %d, or nothing after one that did it", a, tries, last-44, last-5)
			}
			if got := b.stored(sat); got.Position != last-5 {
				t.Errorf("checkpoint: got %+v, want position %d", got, last-5)
			}
			if again, _ := b.ask(sat, q); again.Count != 0 || again.Position != last-5 {
				t.Errorf("skip twice: got %+v; want nothing more", again)
			}
			b.eventually("the gap's event", func() bool { return len(b.events(cluster.EventGap, sat.ID)) == 1 })
			if e := b.events(cluster.EventGap, sat.ID)[0]; e.Reason != "operator" || e.Count != 35 || e.First == "" || e.Last == "" {
				t.Errorf("event: got %+v, want a gap of 35 with first, last and the reason operator", e)
			}
			stop()
			sick.SetBehaviour(satellitetest.Behaviour{})
			sick.Reset()
			b.worker()
			b.wantAll(sick, 5)
			b.balance(registry.Totals{Recipients: 45, Delivered: 5, Expired: 35}) // the sender is owed the five others
		})
	}
}

func seqText(seq uint64) string { return strconv.FormatUint(seq, 10) }
