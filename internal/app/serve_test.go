package app

import (
	"fmt"
	"strings"
	"testing"
)

func TestTheBrokersPasswordIsNotShown(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	cfg.Broker.URLs = []string{"nats://me:hush@nats1:4222", "nats2:4222"}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	about := fmt.Sprint((&relay{cfg: cfg}).about(nil)...)
	if !strings.Contains(about, "nats1:4222,nats2:4222") || strings.Contains(about, "hush") {
		t.Errorf("log: got %s, want both addresses without the password", about)
	}
	cfg.Broker.URLs = []string{"nats://me:hush/hush@nats1:4222"}
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "--nats: address 1") || strings.Contains(err.Error(), "hush") {
		t.Errorf("address that cannot be read: got %v, want an error without the password", err)
	}
}
