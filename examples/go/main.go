// A co2 satellite: prints what others relay, relays each line that it reads.
// Usage: go run ./examples/go RELAY PORT, for example: http://127.0.0.1:2003 7001
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"

	"github.com/co2relay/co2relay/satellite"
)

func main() {
	ctx := context.Background()
	s, err := satellite.New(satellite.Config{
		Relay:  os.Args[1],
		Listen: ":" + os.Args[2],
		Nick:   "go",
		Handler: func(_ context.Context, n satellite.Notification) error {
			fmt.Printf("%s: %v\n", n.Sender, n.Data)
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := s.Start(ctx); err != nil {
		log.Fatal(err)
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if err := s.Relay(ctx, in.Text()); err != nil {
			log.Print(err)
		}
	}
	if err := s.Close(); err != nil {
		log.Fatal(err)
	}
}
