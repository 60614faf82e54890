package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/co2relay/co2relay/satellite"
)

// guest is a tool that is a satellite for a moment. At a port that was named a
// real satellite may be registered. Then it is that one's place which the guest
// takes: what the real one is owed is put off, and its registration is left.
type guest struct {
	*satellite.Satellite
	client *satellite.Client
	named  bool
	before []any // host ids that were registered before; nil if no port was named
}

func (t *toolFlags) guest(client *satellite.Client, stderr io.Writer, change func(*satellite.Config)) (*guest, error) {
	g := &guest{client: client, named: t.port != 0 || t.forwarded != 0}
	cfg := t.config(stderr)
	if g.named {
		cfg.Handler = func(context.Context, satellite.Notification) error { return satellite.Later(0) }
	}
	change(&cfg)
	var err error
	g.Satellite, err = satellite.New(cfg)
	return g, err
}

// start registers the guest, and waits for a relay that is away until ctx ends.
func (g *guest) start(ctx context.Context) error {
	for g.named && g.before == nil {
		ids, err := g.client.Call(ctx, "relay.get_satellites")
		var fault *satellite.Fault
		var ok bool
		switch g.before, ok = ids.([]any); {
		case ok:
			continue
		case err == nil:
			return fmt.Errorf("relay.get_satellites: the answer is no list: %.100v", ids)
		case errors.As(err, &fault):
			return err
		}
		select {
		case <-ctx.Done():
			return err // says more than that the time is over
		case <-time.After(250 * time.Millisecond):
		}
	}
	if err := g.Start(ctx); err != nil {
		return err
	}
	if g.tookOver() {
		g.Stay()
	}
	return nil
}

// tookOver tells whether the guest's registration is a real satellite's.
func (g *guest) tookOver() bool { return slices.Contains(g.before, any(g.ID())) }

// warning is for the one whose satellite it is.
func (g *guest) warning() string {
	return fmt.Sprintf("%s was registered before, so it stays registered and what it is owed is kept; "+
		"its nick and password are this command's until it registers again", g.ID())
}
