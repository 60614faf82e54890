package cluster

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
)

// Hint tells the owners of a partition something that they would find out anyway, later. It is a plain message of core
// NATS: it may be lost or come twice.
type Hint struct {
	Version   int    `json:"v"`
	Kind      string `json:"kind"` // one of the Hint constants
	Satellite string `json:"satellite"`
	Revision  uint64 `json:"revision,omitempty"` // of HintRegistered: the registration's
}

const hintSubjects = "co2.hint."

// Kinds of hints.
const (
	HintRegistered = "registered"    // it registered, perhaps again: try it at once
	HintAlive      = "alive"         // it answered a ping: try it at once
	HintCloseIdle  = "close_idle"    // a ping timed out: close the idle connection to it
	HintOneAtATime = "one_at_a_time" // it serves one connection at a time: ask it to close after each call
)

// Hint sends h to whoever listens for the partition, best effort.
func (c *Cluster) Hint(partition int, h Hint) {
	h.Version = schemaVersion
	if b, err := json.Marshal(h); err == nil {
		_ = c.nc.Publish(hintSubjects+strconv.Itoa(partition), b)
	}
}

// OnHint calls fn, from one goroutine, for every hint of every partition until cancel. role only names the listener in
// errors: every listener gets every hint.
func (c *Cluster) OnHint(role string, fn func(partition int, h Hint)) (cancel func(), err error) {
	sub, err := c.nc.Subscribe(hintSubjects+"*", func(m *nats.Msg) {
		var h Hint
		partition, err := strconv.Atoi(strings.TrimPrefix(m.Subject, hintSubjects))
		if err != nil || json.Unmarshal(m.Data, &h) != nil {
			c.log.Debug("hint is unreadable", "subject", m.Subject)
			return
		}
		fn(partition, h)
	})
	if err != nil {
		return nil, fmt.Errorf("listen for hints as %s: %w", role, err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}
