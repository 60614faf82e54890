package delivery

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/co2relay/co2relay/cluster"
)

// One read of the log by a lane behind the ring. The broker holds a lock that
// publishes need while it reads, hence the bound on bytes.
const (
	blockMessages = 512
	blockBytes    = 512 << 10
	blockReaders  = 4
	blockRetry    = 200 * time.Millisecond
)

// block is a stretch of the log, [from, to). A sequence in it without a message
// is a hole: that message is gone for good.
type block struct {
	from, to uint64
	msgs     []*message
	bytes    int
	used     uint64 // the cache's clock
}

// at returns the first message at or after seq, nil when there is none up to
// the block's end.
func (b *block) at(seq uint64) *message {
	i := int(seq - b.from) // right unless there is a hole
	if i >= len(b.msgs) || b.msgs[i].seq != seq {
		i = sort.Search(len(b.msgs), func(i int) bool { return b.msgs[i].seq >= seq })
	}
	if i >= len(b.msgs) {
		return nil
	}
	return b.msgs[i]
}

// logReader is what the cache needs of the log.
type logReader interface {
	Read(ctx context.Context, from uint64, most, mostBytes int) ([]cluster.Entry, uint64, error)
	State(ctx context.Context) (cluster.LogState, error)
}

// blockCache reads the log for lanes that are behind the ring. Lanes behind at
// about the same place share what one of them read.
type blockCache struct {
	log   logReader
	hlog  hclog.Logger
	world world
	limit int
	slots chan struct{}

	mu      sync.Mutex
	clock   uint64
	bytes   int
	blocks  []*block // by from
	loading []*blockLoad
	wg      sync.WaitGroup
}

// blockLoad is a read under way; lanes near its start wait for it instead of
// reading the same again.
type blockLoad struct {
	from  uint64
	ready []func()
	void  bool // of a log that has gone back since
}

func newBlockCache(log logReader, limit int, hlog hclog.Logger) *blockCache {
	return &blockCache{log: log, limit: limit, hlog: hlog, world: machine{}, slots: make(chan struct{}, blockReaders)}
}

// get returns a block that holds seq. Without one it sees to it that one is
// read, and calls ready (from another goroutine) when it is worth asking again;
// a nil ready only has it read ahead.
func (c *blockCache) get(ctx context.Context, seq uint64, ready func()) *block {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.find(seq); b != nil {
		c.clock++
		b.used = c.clock
		return b
	}
	for _, l := range c.loading {
		if l.from <= seq && seq < l.from+blockMessages {
			if ready != nil {
				l.ready = append(l.ready, ready)
			}
			return nil
		}
	}
	l := &blockLoad{from: seq}
	if ready != nil {
		l.ready = append(l.ready, ready)
	}
	c.loading = append(c.loading, l)
	c.world.begin(&c.wg, func() { c.load(ctx, l) })
	return nil
}

func (c *blockCache) find(seq uint64) *block {
	i := sort.Search(len(c.blocks), func(i int) bool { return c.blocks[i].from > seq })
	for i--; i >= 0; i-- {
		if seq < c.blocks[i].to {
			return c.blocks[i]
		}
		if seq-c.blocks[i].from > blockMessages {
			return nil
		}
	}
	return nil
}

// load reads until it succeeds: a lane that is behind has nothing else to do.
func (c *blockCache) load(ctx context.Context, l *blockLoad) {
	c.slots <- struct{}{}
	defer func() { <-c.slots }()
	for {
		b, err := c.read(ctx, l.from)
		if err == nil || ctx.Err() != nil || c.isVoid(l) {
			c.finish(l, b)
			return
		}
		c.hlog.Warn("log read failed, trying again", "from", l.from, "error", err)
		c.world.pause(ctx, blockRetry)
	}
}

func (c *blockCache) finish(l *blockLoad, b *block) {
	c.mu.Lock()
	for i, other := range c.loading {
		if other == l {
			c.loading = append(c.loading[:i], c.loading[i+1:]...)
			break
		}
	}
	if b != nil && !l.void {
		c.insert(b)
	}
	ready := l.ready
	c.mu.Unlock()
	for _, f := range ready {
		f()
	}
}

// clear forgets everything: the log went back, and other messages will have
// these numbers. What is being read ends without a block, and whoever waits for
// it asks again.
func (c *blockCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blocks, c.bytes = nil, 0
	for _, l := range c.loading {
		l.void = true
	}
}

func (c *blockCache) isVoid(l *blockLoad) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return l.void
}

func (c *blockCache) insert(b *block) {
	c.clock++
	b.used = c.clock
	i := sort.Search(len(c.blocks), func(i int) bool { return c.blocks[i].from >= b.from })
	c.blocks = append(c.blocks, nil)
	copy(c.blocks[i+1:], c.blocks[i:])
	c.blocks[i] = b
	c.bytes += b.bytes
	for c.bytes > c.limit && len(c.blocks) > 1 {
		c.evict()
	}
}

func (c *blockCache) evict() {
	oldest := 0
	for i, b := range c.blocks {
		if b.used < c.blocks[oldest].used {
			oldest = i
		}
	}
	c.bytes -= c.blocks[oldest].bytes
	c.blocks = append(c.blocks[:oldest], c.blocks[oldest+1:]...)
}

// read makes the block that begins at from. Log.Read has confirmed every hole
// with the log's leader; that there is nothing at all is confirmed here, since
// the node that answered may lag.
func (c *blockCache) read(ctx context.Context, from uint64) (*block, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	entries, _, err := c.log.Read(ctx, from, blockMessages, blockBytes)
	if err != nil {
		return nil, err
	}
	b := &block{from: from, to: from, msgs: newMessages(entries)}
	for _, m := range b.msgs {
		b.bytes += m.size()
		b.to = m.seq + 1
	}
	if len(entries) == 0 {
		state, err := c.log.State(ctx)
		if err != nil {
			return nil, err
		}
		if state.First <= from {
			return nil, fmt.Errorf("read log from %d: nothing, though it goes on to %d", from, state.Last)
		}
		b.to = state.First
	}
	return b, nil
}
