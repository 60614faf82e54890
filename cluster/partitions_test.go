package cluster_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/co2relay/co2relay/cluster"
)

// A cluster that runs was cut by this function: it must never change.
func TestPartitionOfIsFixed(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]int{"127.0.0.1:2003": 27, "[::1]:80": 6, "": 5} {
		if got := cluster.PartitionOf(key); got != want {
			t.Errorf("PartitionOf(%q) = %d, want %d", key, got, want)
		}
	}
}

func TestPartitionsAreOfAboutTheSameSize(t *testing.T) {
	t.Parallel()
	const n = 32000
	for name, id := range map[string]func(int) string{
		"one host, many ports": func(i int) string { return fmt.Sprintf("127.0.0.1:%d", 10000+i) },
		"many hosts, one port": func(i int) string { return fmt.Sprintf("10.%d.%d.%d:2003", i>>16, i>>8&255, i&255) },
		"IPv6":                 func(i int) string { return fmt.Sprintf("[2001:db8::%x]:2003", i) },
	} {
		var sizes [cluster.Partitions]int
		for i := range n {
			sizes[cluster.PartitionOf(id(i))]++
		}
		if got, want := slices.Max(sizes[:]), n/cluster.Partitions*11/10; got > want {
			t.Errorf("%s: the largest partition has %d satellites, want at most %d", name, got, want)
		}
	}
}

func workers(n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("worker-%d-%08x", i, rand.Uint32()))
	}
	return names
}

func ownersOf(planned [cluster.Partitions]string) map[int]string {
	owners := make(map[int]string)
	for p, owner := range planned {
		owners[p] = owner
	}
	return owners
}

func loads(planned [cluster.Partitions]string) map[string]int {
	n := make(map[string]int)
	for _, owner := range planned {
		n[owner]++
	}
	return n
}

func TestPlanSharesEvenly(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 40; n++ {
		live := workers(n)
		got := loads(cluster.Plan(live, nil))
		for _, w := range live {
			if low, high := cluster.Partitions/n, (cluster.Partitions+n-1)/n; got[w] < low || got[w] > high {
				t.Errorf("of %d workers one gets %d partitions, want %d to %d", n, got[w], low, high)
			}
		}
	}
}

func TestPlanIsTheSameForAllObservers(t *testing.T) {
	t.Parallel()
	live := workers(7)
	owners := map[int]string{3: live[1], 4: live[1], 30: live[6]}
	want := cluster.Plan(live, owners)
	for range 10 {
		rand.Shuffle(len(live), func(i, j int) { live[i], live[j] = live[j], live[i] })
		if got := cluster.Plan(live, owners); got != want {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

func TestPlanMovesOnlyTheShareOfWhoComesOrGoes(t *testing.T) {
	t.Parallel()
	for n := 1; n < 33; n++ {
		live := workers(n)
		before := cluster.Plan(live, nil)
		more := append(slices.Clone(live), workers(1)...)
		joined := more[n]
		after := cluster.Plan(more, ownersOf(before))
		moved := 0
		for p := range before {
			if before[p] != after[p] {
				moved++
				if after[p] != joined {
					t.Errorf("%d workers and one more: partition %d moves from one old worker to another", n, p)
				}
			}
		}
		if want := loads(after)[joined]; moved != want || want < cluster.Partitions/(n+1) {
			t.Errorf("%d workers and one more: %d partitions move, %d to the new one", n, moved, want)
		}
		owners := ownersOf(after)
		for p, owner := range owners {
			if owner == live[0] {
				delete(owners, p)
			}
		}
		left := cluster.Plan(more[1:], owners)
		for p := range left {
			if after[p] != live[0] && left[p] != after[p] {
				t.Errorf("one of %d workers dies: partition %d moves although its owner lives", n+1, p)
			}
		}
	}
}
