package cluster_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
)

// big is a layout in which no benchmark meets a limit.
var big = cluster.Layout{RetentionBytes: 3 << 30}

// BenchmarkPublish measures relayed messages of 500 bytes into an embedded broker that syncs each commit.
func BenchmarkPublish(b *testing.B) {
	for _, callers := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			c := clustertest.ConnectWith(b, clustertest.StartServer(b, b.TempDir()), big)
			m := cluster.Message{Sender: "127.0.0.1:4711", Body: strings.Repeat("x", 500)}
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if err := c.Log().Publish(context.Background(), m); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
		})
	}
}

// fill puts n messages of 500 bytes into the log and returns the sequence of the first.
func fill(b *testing.B, c *cluster.Cluster, n int) uint64 {
	b.Helper()
	last, err := c.Log().Last(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			for range n / 200 {
				if err := c.Log().Publish(context.Background(), cluster.Message{Sender: "a", Body: strings.Repeat("x", 500)}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	return last + 1
}

// BenchmarkRead measures batched reading of the log.
func BenchmarkRead(b *testing.B) {
	c := clustertest.ConnectWith(b, clustertest.StartServer(b, b.TempDir()), big)
	first := fill(b, c, 40000)
	b.ResetTimer()
	for read, next := 0, first; read < b.N; {
		entries, after, err := c.Log().Read(context.Background(), next, 500, 0)
		if err != nil {
			b.Fatal(err)
		}
		if next = after; len(entries) == 0 {
			next = first
		}
		read += len(entries)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}

// BenchmarkFollow measures following the log from an old position on.
func BenchmarkFollow(b *testing.B) {
	c := clustertest.ConnectWith(b, clustertest.StartServer(b, b.TempDir()), big)
	first := fill(b, c, 40000)
	b.ResetTimer()
	for read := 0; read < b.N; {
		ctx, cancel := context.WithCancel(context.Background())
		n := 0
		if err := c.Log().Follow(ctx, first, func(es []cluster.Entry) {
			if n += len(es); n >= 40000 || read+n >= b.N {
				cancel()
			}
		}); err != nil {
			b.Fatal(err)
		}
		read += n
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}

// BenchmarkBucketLoad measures the load of 100,000 keys.
func BenchmarkBucketLoad(b *testing.B) {
	const keys = 100000
	c := clustertest.ConnectWith(b, clustertest.StartServer(b, b.TempDir()), big)
	bucket := c.Bucket(cluster.BucketSatellites)
	var wg sync.WaitGroup
	for w := range 100 {
		wg.Go(func() {
			for i := range keys / 100 {
				if _, err := bucket.PutAny(context.Background(), fmt.Sprintf("k%d", w*keys/100+i), []byte(strings.Repeat("x", 200))); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ResetTimer()
	for range b.N {
		items, err := bucket.List(context.Background())
		if err != nil || len(items) != keys {
			b.Fatalf("%d items, %v", len(items), err)
		}
	}
}
