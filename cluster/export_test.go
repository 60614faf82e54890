package cluster

import (
	"os"
	"testing"
	"time"
)

// TestMain gives writes that are tried once the time that a slow disk may take to sync.
func TestMain(m *testing.M) {
	writeTry = 10 * time.Second
	os.Exit(m.Run())
}
