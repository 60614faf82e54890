package satellite_test

import (
	"context"
	"fmt"
	"log"

	"github.com/co2relay/co2relay/satellite"
)

// Two satellites at one relay: what one relays, the other is notified of.
func Example() {
	relay := newFakeRelay() // in earnest: co2relay serve
	defer relay.srv.Close()
	ctx := context.Background()

	got := make(chan bool, 1)
	lights, err := satellite.New(satellite.Config{
		Relay:  relay.srv.URL,
		Listen: "127.0.0.1:0",
		Nick:   "lights",
		Handler: func(_ context.Context, n satellite.Notification) error {
			scene, _ := n.Data.(satellite.Struct).Get("scene")
			fmt.Println("scene:", scene)
			got <- true
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := lights.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer lights.Close()

	desk, err := satellite.New(satellite.Config{Relay: relay.srv.URL, Listen: "127.0.0.1:0", Nick: "desk"})
	if err != nil {
		log.Fatal(err)
	}
	if err := desk.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer desk.Close()

	if err := desk.Relay(ctx, map[string]any{"scene": "dusk", "fade": 2.5}); err != nil {
		log.Fatal(err)
	}
	<-got
	// Output: scene: dusk
}

// Client calls any method of a relay, without being a satellite.
func ExampleClient() {
	relay := newFakeRelay() // in earnest: co2relay serve
	defer relay.srv.Close()

	client, err := satellite.NewClient(relay.srv.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	answer, err := client.Call(context.Background(), "test", []any{"any", 1, true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer)
	// Output: [any 1 true]
}
