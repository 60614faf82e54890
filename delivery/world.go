package delivery

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/co2relay/co2relay/registry"
)

// world is what a worker takes from the machine that it runs on. The simulation
// has one whose time and chance come from a seed.
type world interface {
	now() time.Time
	pause(ctx context.Context, d time.Duration) // until d is over or ctx ends
	begin(wg *sync.WaitGroup, f func())         // runs f beside the caller
	chance(n int64) int64                       // one of [0, n)
	turn(lp *loop)                              // the caller is going to wait for what it posted
}

// machine is the real world, in which loops turn by themselves.
type machine struct{}

func (machine) now() time.Time                             { return time.Now() }
func (machine) pause(ctx context.Context, d time.Duration) { pause(ctx, d) }
func (machine) begin(wg *sync.WaitGroup, f func())         { wg.Go(f) }
func (machine) chance(n int64) int64                       { return rand.Int64N(n) }
func (machine) turn(*loop)                                 {}

// member is what a worker needs of its membership.
type member interface {
	Run(ctx context.Context) error
	Alive() bool
	Progress()
	Save(ctx context.Context, states map[int][]byte) (lost []int, err error)
}

// tail is a log whose end can be asked for.
type tail interface {
	logReader
	Last(ctx context.Context) (uint64, error)
}

// figureStore is what a worker needs of the registry to take partitions over
// and to write their figures.
type figureStore interface {
	WaitRevision(ctx context.Context, revision uint64) error
	LoadTraffic(ctx context.Context, p int) (registry.TrafficRecord, uint64, error)
	SaveTraffic(ctx context.Context, r registry.TrafficRecord, revision uint64) (uint64, error)
}
