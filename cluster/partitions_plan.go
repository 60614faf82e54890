package cluster

import (
	"cmp"
	"hash/fnv"
	"slices"
)

// Who should own what. Every member computes it for itself from what the leases say, and all come to the same answer; where
// two of them know different leases for a moment, compare-and-set decides.
//
// The ranking is rendezvous hashing: each pair of member and partition has a score, and a partition goes to the best-scored
// member that has room. Room is 32/n partitions, and one more for 32%n of the n members, so that nobody idles while others
// are full. Plain bounded hashing would, with every member that comes or goes, also swap a few partitions between the
// others (1 to 4 of 32, in a simulation of 2 to 11 members); each such move is a pause for its satellites. So whoever owns
// a partition keeps it as long as it has room for it, and only what is unowned or too much goes by the ranking: a member
// that joins gets its share and nothing else moves, and when one dies only what it owned moves.

// plan gives the owner of each partition. live are the members, owners the partitions that a live one owns. It depends on
// nothing else, not even on the order of live. Without members every owner is "".
func plan(live []string, owners map[int]string) [Partitions]string {
	var planned [Partitions]string
	n := len(live)
	if n == 0 {
		return planned
	}
	load := make(map[string]int, n)
	floor, extra := Partitions/n, Partitions%n
	give := func(x pair) {
		switch {
		case planned[x.p] != "":
		case load[x.member] < floor:
			load[x.member]++
			planned[x.p] = x.member
		case load[x.member] == floor && extra > 0:
			extra--
			load[x.member]++
			planned[x.p] = x.member
		}
	}
	pairs := ranking(live)
	for _, x := range pairs {
		if owners[x.p] == x.member {
			give(x)
		}
	}
	for _, x := range pairs {
		give(x)
	}
	return planned
}

// pair is a partition and a member that might own it.
type pair struct {
	p      int
	member string
	score  uint64
}

// ranking is all pairs, best score first.
func ranking(live []string) []pair {
	pairs := make([]pair, 0, Partitions*len(live))
	for _, member := range live {
		seed := fnv.New64a()
		_, _ = seed.Write([]byte(member))
		for p := range Partitions {
			pairs = append(pairs, pair{p, member, score(seed.Sum64(), p)})
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.p, b.p), cmp.Compare(a.member, b.member))
	})
	return pairs
}

// score mixes a member's hash with a partition (the finalizer of splitmix64, by Sebastiano Vigna). All versions that run
// together must agree on it.
func score(seed uint64, p int) uint64 {
	x := seed + uint64(p+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// turn is how many live members come before member in the order in which a partition that its planned owner does not claim
// is offered to the others: 1 for the first of them, 0 for the planned owner itself.
func turn(live []string, planned, member string, p int) int {
	if planned == member {
		return 0
	}
	n := 1
	for _, x := range ranking(live) {
		if x.p != p || x.member == planned {
			continue
		}
		if x.member == member {
			break
		}
		n++
	}
	return n
}
