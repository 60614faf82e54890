package registry

import "github.com/co2relay/co2relay/cluster"

const trafficRecord = "traffic record"

// encodeTraffic gives the stored form of a record. When a record would be
// larger than MaxRecord it leaves out the error texts; the error is one of
// size when not even that suffices.
func encodeTraffic(r *TrafficRecord) ([]byte, error) {
	b, err := appendTraffic(r, MaxLastError)
	if err == nil && len(b) > MaxRecord {
		b, err = appendTraffic(r, 0)
	}
	if err == nil && len(b) > MaxRecord {
		return nil, tooLarge(trafficRecord, r.Partition, len(r.Satellites), len(b))
	}
	return b, err
}

func appendTraffic(r *TrafficRecord, maxError int) ([]byte, error) {
	return encodeRecord(trafficVersion, func(e *encoder) {
		e.uint(uint64(r.Partition))
		e.uint(r.Epoch)
		e.uint(r.ReadTo)
		e.uint(r.Totals.Recipients)
		e.uint(r.Totals.Delivered)
		e.uint(r.Totals.Refused)
		e.uint(r.Totals.Expired)
		e.uint(r.Totals.Dropped)
	}, r.Satellites, 96, func(e *encoder, t *Traffic) error { return e.traffic(t, r.ReadTo, maxError) })
}

// traffic appends one entry. The position is stored as its distance from the
// record's, which is short for every lane that keeps up.
func (e *encoder) traffic(t *Traffic, readTo uint64, maxError int) error {
	if err := e.id(t.ID); err != nil {
		return err
	}
	e.uint(t.Generation)
	e.int(int64(readTo - t.Position))
	e.uint(t.Sent)
	e.time(t.SentAt)
	e.uint(t.Received)
	e.uint(t.Refused)
	e.uint(t.Expired)
	e.uint(t.Own)
	e.time(t.ReceivedAt)
	e.uint(uint64(t.State))
	e.uint(uint64(t.Attempts))
	e.time(t.RetryAt)
	e.bytes(cut(t.LastError, maxError))
	return nil
}

// decodeTraffic reads a stored record. The error is ErrUnreadable.
func decodeTraffic(b []byte) (r TrafficRecord, err error) {
	r.Satellites, err = decodeRecord(b, trafficRecord, trafficVersion, func(d *decoder) {
		r.Partition, r.Epoch, r.ReadTo = d.small(cluster.Partitions), d.Uint(), d.Uint()
		r.Totals = Totals{Recipients: d.Uint(), Delivered: d.Uint(), Refused: d.Uint(), Expired: d.Uint(), Dropped: d.Uint()}
	}, func(d *decoder, t *Traffic) { d.traffic(t, r.ReadTo) })
	if err != nil {
		return TrafficRecord{}, err
	}
	return r, nil
}

func (d *decoder) traffic(t *Traffic, readTo uint64) {
	t.ID = d.id()
	t.Generation = d.Uint()
	t.Position = readTo - uint64(d.Int())
	t.Sent = d.Uint()
	t.SentAt = d.time()
	t.Received = d.Uint()
	t.Refused = d.Uint()
	t.Expired = d.Uint()
	t.Own = d.Uint()
	t.ReceivedAt = d.time()
	t.State = State(d.small(1 << 8))
	t.Attempts = d.uint32()
	t.RetryAt = d.time()
	// Copied, and so cut, because the entry outlives the record's bytes.
	t.LastError = cut(string(d.Take(d.Uint())), MaxLastError)
}
