package registry

import "github.com/co2relay/co2relay/cluster"

// Bits of a ping entry's flags. Unknown ones are ignored.
const pingOneAtATime = 1 << 0

const pingRecord = "ping record"

// encodePing gives the stored form of a record. The error is one of size.
func encodePing(r *PingRecord) ([]byte, error) {
	b, err := encodeRecord(pingVersion, func(e *encoder) {
		e.uint(uint64(r.Partition))
		e.uint(r.Epoch)
	}, r.Satellites, 80, (*encoder).ping)
	if err == nil && len(b) > MaxRecord {
		return nil, tooLarge(pingRecord, r.Partition, len(r.Satellites), len(b))
	}
	return b, err
}

func (e *encoder) ping(p *Ping) error {
	if err := e.id(p.ID); err != nil {
		return err
	}
	e.uint(p.Generation)
	e.uint(p.Count)
	e.uint(p.Fails)
	e.float(p.Current)
	e.float(p.Min)
	e.float(p.Max)
	e.float(p.Sum)
	e.time(p.At)
	var flags uint64
	if p.OneAtATime {
		flags |= pingOneAtATime
	}
	e.uint(flags)
	e.uint(uint64(p.Failing))
	first := 0
	for first < RecentPings && p.Recent[first] == 0 {
		first++
	}
	e.uint(uint64(RecentPings - first))
	for _, n := range p.Recent[first:] {
		e.uint(uint64(n + 1)) // a failed one becomes 0, of one byte
	}
	e.time(p.FailingSince)
	return nil
}

// decodePing reads a stored record. The error is ErrUnreadable.
func decodePing(b []byte) (r PingRecord, err error) {
	r.Satellites, err = decodeRecord(b, pingRecord, pingVersion, func(d *decoder) {
		r.Partition, r.Epoch = d.small(cluster.Partitions), d.Uint()
	}, (*decoder).ping)
	if err != nil {
		return PingRecord{}, err
	}
	return r, nil
}

func (d *decoder) ping(p *Ping) {
	p.ID = d.id()
	p.Generation = d.Uint()
	p.Count = d.Uint()
	p.Fails = d.Uint()
	p.Current = d.float()
	p.Min = d.float()
	p.Max = d.float()
	p.Sum = d.float()
	p.At = d.time()
	p.OneAtATime = d.Uint()&pingOneAtATime != 0
	p.Failing = d.uint32()
	if len(d.Rest) == 0 { // written before these were kept
		return
	}
	n := d.small(RecentPings + 1)
	for i := RecentPings - n; i < RecentPings; i++ {
		p.Recent[i] = d.uint32() - 1
	}
	if len(d.Rest) > 0 { // kept later still
		p.FailingSince = d.time()
	}
}
