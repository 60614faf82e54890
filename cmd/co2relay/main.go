// Command co2relay relays messages between satellites over XML-RPC.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/co2relay/co2relay/internal/app"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := app.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
