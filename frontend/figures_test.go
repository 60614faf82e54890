package frontend

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/co2relay/co2relay/internal/xmlrpc"
	"github.com/co2relay/co2relay/registry"
)

func TestFiguresStandInThePropsInTheirTypes(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	c := r.from("")
	id := registry.ID(c.register(9000, "max_age", 1.5, "nick", "n"))
	sat, _ := r.reg.Lookup(id)
	check := func(want map[string]xmlrpc.Value, kinds map[string]xmlrpc.Kind, method string) {
		t.Helper()
		got := c.must(method, str("host_id", string(id)))
		for name, kind := range kinds {
			if v, ok := got.Member(name); !ok || v.Kind() != kind {
				t.Errorf("%s: %s is %s, want kind %d", method, name, v.Raw(), kind)
			}
		}
		for name, w := range want {
			if v, _ := got.Member(name); v.Raw() != w.Raw() {
				t.Errorf("%s: %s is %s, want %s", method, name, v.Raw(), w.Raw())
			}
		}
	}
	kinds := map[string]xmlrpc.Kind{
		"addr": xmlrpc.Array, "host_id": xmlrpc.String, "nick": xmlrpc.String, "ctime": xmlrpc.DateTime, "ping_current": xmlrpc.Double,
		"ping_count": xmlrpc.Int, "ping_min": xmlrpc.Double, "ping_max": xmlrpc.Double, "ping_avg": xmlrpc.Double, "ping_fails": xmlrpc.Int,
		"send_count": xmlrpc.Int, "send_time": xmlrpc.DateTime, "recv_count": xmlrpc.Int, "recv_time": xmlrpc.DateTime,
	}
	never := xmlrpc.NewTime(time.Unix(0, 0))
	check(map[string]xmlrpc.Value{
		"ping_current": xmlrpc.NewDouble(-1), "send_time": never, "recv_time": never,
		"addr": xmlrpc.NewArray(xmlrpc.NewString("127.0.0.1"), xmlrpc.NewInt(9000)),
	}, kinds, "relay.get_satellite_props")
	save(t, r.reg, sat)
	raw := map[string]xmlrpc.Kind{
		"ctime": xmlrpc.Double, "send_time": xmlrpc.Double, "recv_time": xmlrpc.Double, "state": xmlrpc.String, "backlog": xmlrpc.Int,
		"plugins": xmlrpc.Array, "last_error": xmlrpc.String, "position": xmlrpc.String, "one_at_a_time": xmlrpc.Bool, "retry_time": xmlrpc.Double,
	}
	eventually(t, "the figures are read again", func() bool {
		got := c.must("co2.get_satellite", str("host_id", string(id)))
		number := func(name string) int64 { v, _ := got.Member(name); n, _ := v.Int(); return n }
		return number("send_count") == 7 && number("ping_fails") == 1 // two records, written one after the other
	})
	check(map[string]xmlrpc.Value{
		"ping_current": xmlrpc.NewDouble(2.5), "ping_avg": xmlrpc.NewDouble(3), "recv_count": xmlrpc.NewInt(11),
		"recv_time": xmlrpc.NewTime(time.Unix(1_000_000, 0)), "ping_fails": xmlrpc.NewInt(1),
	}, kinds, "web.get_satellite_props")
	check(map[string]xmlrpc.Value{
		"recv_time": xmlrpc.NewDouble(1_000_000), "state": xmlrpc.NewString("parked"), "refused_count": xmlrpc.NewInt(1),
		"last_error": xmlrpc.NewString("refused"), "max_age": xmlrpc.NewDouble(1.5), "position": xmlrpc.NewString(strconv.FormatUint(sat.Began, 10)),
	}, raw, "relay.get_satellite_props_raw")
}

// save writes figures as the delivery worker and the pinger would.
func save(t *testing.T, reg *registry.Registry, sat *registry.Satellite) {
	t.Helper()
	p := sat.ID.Partition()
	saved(t, p, reg.LoadTraffic, reg.SaveTraffic, registry.TrafficRecord{Partition: p, ReadTo: sat.Began, Satellites: []registry.Traffic{{
		ID: sat.ID, Generation: sat.Generation, Position: sat.Began, Sent: 7, Own: 7, Received: 10, Refused: 1,
		ReceivedAt: time.Unix(1_000_000, 0), State: registry.StateParked, Attempts: 2, RetryAt: time.Now().Add(time.Minute), LastError: "refused",
	}}})
	saved(t, p, reg.LoadPing, reg.SavePing, registry.PingRecord{Partition: p, Satellites: []registry.Ping{{
		ID: sat.ID, Generation: sat.Generation, Count: 3, Fails: 1, Current: 2.5, Min: 2.5, Max: 3.5, Sum: 6, At: time.Now(),
	}}})
}

// saved writes a record of figures, again and again as a worker does: one write
// gives up after 2 seconds, and a slow disk takes longer.
func saved[R any](t *testing.T, partition int, load func(context.Context, int) (R, uint64, error), save func(context.Context, R, uint64) (uint64, error), record R) {
	t.Helper()
	eventually(t, fmt.Sprintf("%T is saved", record), func() bool {
		_, revision, err := load(t.Context(), partition)
		if err == nil {
			_, err = save(t.Context(), record, revision)
		}
		return err == nil
	})
}
