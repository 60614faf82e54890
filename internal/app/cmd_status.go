package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

const statusUsage = `Usage: co2relay status [--check] [--json] [--data DIR | --nats URL,...]

Shows how the relay is: satellites by state, messages in the log and what became
of them, workers and their partitions, the broker.

With --check the exit code is 1 when the accounts do not balance, that is, when
  recipients = delivered + refused + expired + dropped + owed
does not hold over all messages that the delivery workers have read, or not for
some satellite by itself. The figures are at most about a second old. Each
partition's are of one moment, so they balance under traffic too.`

func statusCommand(ctx context.Context, args []string, std streams) int {
	var check, asJSON bool
	return deskCommand{
		name: "status", usage: statusUsage, check: noArguments,
		bind: func(f *flagSet) {
			f.BoolVar(&check, "check", false, "exit with 1 if the accounts do not balance")
			f.BoolVar(&asJSON, "json", false, "one JSON object, for programs")
		},
		run: func(ctx context.Context, d *desk, std streams) (int, error) {
			s, err := readStatus(ctx, d)
			if err != nil {
				return ExitError, err
			}
			if asJSON {
				err = writeJSON(std.out, s, "  ")
			} else {
				err = s.print(std.out)
			}
			if err == nil && check && !s.Accounts.Balances {
				err = errors.New("the accounts do not balance")
			}
			return ExitOK, err
		},
	}.main(ctx, args, std)
}

// status is what the command shows. As JSON it is for programs: members may be
// added, none changes its meaning.
type status struct {
	Version    int               `json:"v"`
	Time       time.Time         `json:"time"`
	Broker     brokerStatus      `json:"broker"`
	Log        logStatus         `json:"log"`
	Satellites satelliteStatus   `json:"satellites"`
	Accounts   accountStatus     `json:"accounts"`
	Workers    []workerStatus    `json:"workers"`
	Partitions []partitionStatus `json:"partitions"`
	// Notes are what an operator should look at; they do not concern the accounts.
	Notes []string `json:"notes"`
}

type brokerStatus struct {
	Server    string         `json:"server"`
	Version   string         `json:"version"`
	Cluster   string         `json:"cluster,omitempty"`
	RoundTrip float64        `json:"round_trip_ms"`
	Streams   []streamStatus `json:"streams"`
}

type streamStatus struct {
	Name     string   `json:"name"`
	Messages uint64   `json:"messages"`
	Bytes    uint64   `json:"bytes"`
	Leader   string   `json:"leader,omitempty"`
	Replicas int      `json:"replicas"`
	Behind   []string `json:"behind,omitempty"` // nodes whose copy is not current
}

type logStatus struct {
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
	MaxBytes int64  `json:"max_bytes"`
	First    string `json:"first"` // msg_id, a string as satellites get it
	Last     string `json:"last"`
}

type satelliteStatus struct {
	Registered  int `json:"registered"`
	Max         int `json:"max"`
	Idle        int `json:"idle"`
	Live        int `json:"live"`
	Behind      int `json:"behind"`
	Parked      int `json:"parked"`
	New         int `json:"new"`         // no figures of them yet
	Unreachable int `json:"unreachable"` // their last ping failed, whatever their state
}

type accountStatus struct {
	Recipients uint64   `json:"recipients"`
	Delivered  uint64   `json:"delivered"`
	Refused    uint64   `json:"refused"`
	Expired    uint64   `json:"expired"`
	Dropped    uint64   `json:"dropped"`
	Owed       uint64   `json:"owed"`
	Balance    int64    `json:"balance"` // recipients less all the others
	Balances   bool     `json:"balances"`
	Faults     []string `json:"faults"`   // which partitions and satellites do not balance
	Unread     uint64   `json:"unread"`   // messages at the log's end that some delivery worker has not counted yet
	Messages   uint64   `json:"messages"` // accepted since the log was made
}

type workerStatus struct {
	Role       string    `json:"role"`
	ID         string    `json:"id"`
	Renewed    time.Time `json:"renewed"`
	Partitions []int     `json:"partitions"`
}

type partitionStatus struct {
	Partition  int    `json:"partition"`
	Delivery   string `json:"delivery"` // owner, "" if there is none
	Pinger     string `json:"pinger"`
	Satellites int    `json:"satellites"`
	ReadTo     string `json:"read_to"` // of the figures
	Owed       uint64 `json:"owed"`
	Balance    int64  `json:"balance"`
}

// maxFaults bounds how many faults of one kind are spelt out.
const maxFaults = 20

func readStatus(ctx context.Context, d *desk) (*status, error) {
	s := &status{Version: 1, Time: time.Now().UTC(), Notes: []string{}}
	s.Accounts.Faults = []string{}
	// The log's end first: what was read later than it is not unread.
	state, err := d.clus.Log().State(ctx)
	if err != nil {
		return nil, err
	}
	s.Log = logStatus{Messages: state.Messages, Bytes: state.Bytes, MaxBytes: state.MaxBytes, First: decimal(state.First), Last: decimal(state.Last)}
	if origin := max(state.Origin, 1); state.Last >= origin {
		s.Accounts.Messages = state.Last - origin + 1
	}
	if err := s.readBroker(ctx, d); err != nil {
		return nil, err
	}
	if err := s.readWorkers(ctx, d); err != nil {
		return nil, err
	}
	return s, s.readFigures(ctx, d, state.Last)
}

func (s *status) readBroker(ctx context.Context, d *desk) error {
	b, err := d.clus.Broker(ctx)
	if err != nil {
		return err
	}
	s.Broker = brokerStatus{Server: b.Server, Version: b.Version, Cluster: b.Cluster, RoundTrip: float64(b.RoundTrip.Microseconds()) / 1000}
	for _, x := range b.Streams {
		s.Broker.Streams = append(s.Broker.Streams, streamStatus(x))
		if len(x.Behind) > 0 {
			s.note("stream %s: the copies on %v are not current", x.Name, x.Behind)
		}
	}
	return nil
}

// deadAfter is the age of a lease beyond which its worker is called dead: others
// take its partitions over after 4 s.
const deadAfter = 5 * time.Second

func (s *status) readWorkers(ctx context.Context, d *desk) error {
	workers, err := d.clus.Workers(ctx)
	if err != nil {
		return err
	}
	owned := map[string][]int{} // role and id to partitions
	s.Partitions = make([]partitionStatus, cluster.Partitions)
	for p := range s.Partitions {
		s.Partitions[p].Partition = p
	}
	for _, role := range []string{"delivery", "pinger"} {
		records, err := d.clus.PartitionRecords(ctx, role)
		if err != nil {
			return err
		}
		for _, r := range records {
			if r.Owner != "" {
				owned[role+" "+r.Owner] = append(owned[role+" "+r.Owner], r.Partition)
			}
			if role == "delivery" {
				s.Partitions[r.Partition].Delivery = r.Owner
			} else {
				s.Partitions[r.Partition].Pinger = r.Owner
			}
		}
	}
	for _, w := range workers {
		key := w.Role + " " + w.ID
		s.Workers = append(s.Workers, workerStatus{Role: w.Role, ID: w.ID, Renewed: w.Renewed, Partitions: owned[key]})
		delete(owned, key)
		if age := time.Since(w.Renewed); age > deadAfter {
			s.note("%s worker %s has not renewed its lease for %s", w.Role, w.ID, age.Round(time.Second))
		}
	}
	for key, ps := range owned {
		s.note("partitions %s belong to %s, which has no lease", ranges(ps), key)
	}
	for _, role := range []string{"delivery", "pinger"} {
		var free []int
		for _, p := range s.Partitions {
			if role == "delivery" && p.Delivery == "" || role == "pinger" && p.Pinger == "" {
				free = append(free, p.Partition)
			}
		}
		if len(free) > 0 {
			s.note("partitions %s have no %s worker", ranges(free), role)
		}
	}
	return nil
}

func (s *status) readFigures(ctx context.Context, d *desk, last uint64) error {
	sats, unreadable, err := d.reg.Registered(ctx)
	if err != nil {
		return err
	}
	if unreadable > 0 {
		s.note("%d registrations are not readable by this version", unreadable)
	}
	if s.Satellites.Max, err = d.reg.MaxSats(ctx); err != nil {
		return err
	}
	s.Satellites.Registered = len(sats)
	registered := make(map[registry.ID]*registry.Satellite, len(sats))
	began := make(map[int]uint64) // of each partition's first satellite: what came before concerns nobody there
	for _, sat := range sats {
		registered[sat.ID] = sat
		p := sat.ID.Partition()
		if first, known := began[p]; !known || sat.Began < first {
			began[p] = sat.Began
		}
	}
	counted := 0
	for p := range s.Partitions {
		n, readTo, err := s.readPartition(ctx, d, p, registered)
		if err != nil {
			return err
		}
		counted += n
		if first, known := began[p]; known && last > max(readTo, first) {
			s.Accounts.Unread = max(s.Accounts.Unread, last-max(readTo, first))
		}
	}
	s.Satellites.New = max(len(sats)-counted, 0)
	a := &s.Accounts
	a.Balance = int64(a.Recipients - a.Delivered - a.Refused - a.Expired - a.Dropped - a.Owed)
	a.Balances = a.Balance == 0 && len(a.Faults) == 0
	return nil
}

// readPartition adds one partition's figures and returns for how many of the
// registered satellites there are some, and up to which message.
func (s *status) readPartition(ctx context.Context, d *desk, p int, registered map[registry.ID]*registry.Satellite) (counted int, readTo uint64, err error) {
	r, _, err := d.reg.LoadTraffic(ctx, p)
	if err != nil {
		return 0, 0, err
	}
	sum := registry.Accounts{Totals: r.Totals}
	for i := range r.Satellites {
		t := &r.Satellites[i]
		sum.Owed += uint64(t.Owed(r.ReadTo))
		sat := registered[t.ID]
		if sat == nil || sat.Generation != t.Generation {
			continue
		}
		counted++
		s.Satellites.add(t.State)
		if off := int64(t.Position-sat.Began) - int64(t.Received+t.Refused+t.Expired+t.Own); off != 0 {
			s.fault("satellite %s: it has %d messages behind it and figures of %d", t.ID, t.Position-sat.Began, t.Received+t.Refused+t.Expired+t.Own)
		}
	}
	x := &s.Partitions[p]
	x.Satellites, x.ReadTo, x.Owed, x.Balance = counted, decimal(r.ReadTo), sum.Owed, sum.Balance()
	if x.Balance != 0 {
		s.fault("partition %d: recipients and what became of them differ by %d", p, x.Balance)
	}
	a := &s.Accounts
	a.Recipients += sum.Recipients
	a.Delivered += sum.Delivered
	a.Refused += sum.Refused
	a.Expired += sum.Expired
	a.Dropped += sum.Dropped
	a.Owed += sum.Owed
	pings, _, err := d.reg.LoadPing(ctx, p)
	if err != nil {
		return 0, 0, err
	}
	for _, ping := range pings.Satellites {
		if sat := registered[ping.ID]; sat != nil && sat.Generation == ping.Generation && ping.Failing > 0 {
			s.Satellites.Unreachable++
		}
	}
	return counted, r.ReadTo, nil
}

func (s *satelliteStatus) add(state registry.State) {
	switch state {
	case registry.StateIdle:
		s.Idle++
	case registry.StateLive:
		s.Live++
	case registry.StateBehind:
		s.Behind++
	case registry.StateParked:
		s.Parked++
	}
}

func (s *status) note(format string, args ...any) {
	s.Notes = append(s.Notes, fmt.Sprintf(format, args...))
}

func (s *status) fault(format string, args ...any) {
	switch n := len(s.Accounts.Faults); {
	case n < maxFaults:
		s.Accounts.Faults = append(s.Accounts.Faults, fmt.Sprintf(format, args...))
	case n == maxFaults:
		s.Accounts.Faults = append(s.Accounts.Faults, "and more")
	}
}
