package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Partitions is how many parts the satellites are shared out in. It is fixed when a cluster is made: every worker must cut
// the same way.
const Partitions = 32

// PartitionOf is the partition of a satellite, by its host id: FNV-1a with 64 bits over the bytes of the id, modulo
// Partitions. Ids that differ in their last digits, as real ones do, fall more evenly by it than by chance.
func PartitionOf(key string) int {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	return int(h.Sum64() % Partitions)
}

// PartitionRecord is what PARTITIONS holds for one partition and role.
type PartitionRecord struct {
	Partition int
	Owner     string    // Member.ID of the owner; "" after a release
	Last      string    // Member.ID of the owner before this one, or of the one that released it
	Epoch     uint64    // raised by each claim
	State     []byte    // the owner's; opaque here
	Revision  uint64    // of the bucket; 0 if the partition was never claimed
	Written   time.Time // when the broker stored it
}

// storedPartition is the record as JSON.
type storedPartition struct {
	Version int    `json:"v"`
	Owner   string `json:"owner"`
	Last    string `json:"last,omitempty"`
	Epoch   uint64 `json:"epoch"`
	State   []byte `json:"state,omitempty"`
}

// partitionKey is "<role>.<two digits>", so that a bucket viewed by any NATS tool lists in order.
func partitionKey(role string, p int) string { return fmt.Sprintf("%s.%02d", role, p) }

// partitionOfKey reads partitionKey back.
func partitionOfKey(role, key string) (int, bool) {
	digits, ok := strings.CutPrefix(key, role+".")
	if !ok {
		return 0, false
	}
	p, err := strconv.Atoi(digits)
	return p, err == nil && p >= 0 && p < Partitions
}

func (r PartitionRecord) encode() ([]byte, error) {
	b, err := json.Marshal(storedPartition{Version: schemaVersion, Owner: r.Owner, Last: r.Last, Epoch: r.Epoch, State: r.State})
	if err != nil {
		return nil, fmt.Errorf("encode partition %d: %w", r.Partition, err)
	}
	return b, nil
}

// decodePartition reads an item of the bucket. A deleted or absent one is a partition that nobody has owned yet.
func decodePartition(p int, item Item) (PartitionRecord, error) {
	r := PartitionRecord{Partition: p, Revision: item.Revision, Written: item.Created}
	if item.Deleted || item.Revision == 0 {
		return r, nil
	}
	var s storedPartition
	if err := json.Unmarshal(item.Value, &s); err != nil {
		return r, fmt.Errorf("decode partition %d at revision %d: %w", p, item.Revision, err)
	}
	if s.Version > schemaVersion+1 {
		return r, fmt.Errorf("decode partition %d: schema version %d, this program knows up to %d: run the newer program", p, s.Version, schemaVersion+1)
	}
	r.Owner, r.Last, r.Epoch, r.State = s.Owner, s.Last, s.Epoch, s.State
	return r, nil
}

// PartitionRecords reads, from the leader, what stands for the partitions of a role, in their order. Partitions that nobody
// has claimed yet are left out.
func (c *Cluster) PartitionRecords(ctx context.Context, role string) ([]PartitionRecord, error) {
	items, err := c.Bucket(BucketPartitions).List(ctx)
	if err != nil {
		return nil, fmt.Errorf("read partitions of role %s: %w", role, err)
	}
	var records []PartitionRecord
	for _, item := range items {
		p, ok := partitionOfKey(role, item.Key)
		if !ok || item.Deleted {
			continue
		}
		r, err := decodePartition(p, item)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	slices.SortFunc(records, func(a, b PartitionRecord) int { return cmp.Compare(a.Partition, b.Partition) })
	return records, nil
}
