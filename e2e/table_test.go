package e2e

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// row is what one fault did.
type row struct {
	what                                       string
	accepted, failed, lost, repeated, disorder int
	pause                                      time.Duration // longest between two accepted calls of a sender
	silence                                    time.Duration // longest between two notifications of a receiver
}

func (r row) String() string {
	return fmt.Sprintf("%-44s accepted %6d  failed calls %3d  lost %d  repeated %3d  out of order %d  longest pause %6s accepting, %6s receiving",
		r.what, r.accepted, r.failed, r.lost, r.repeated, r.disorder,
		r.pause.Round(10*time.Millisecond), r.silence.Round(10*time.Millisecond))
}

type rows struct {
	mu   sync.Mutex
	rows []string
}

var table rows

func (t *rows) add(r fmt.Stringer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, r.String())
}

func (t *rows) print() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.rows {
		fmt.Println("e2e:", r)
	}
	fmt.Printf("e2e: all in %s\n", time.Since(began).Round(time.Second))
}

type note string

func (n note) String() string { return string(n) }

// textOf is the text within <value><string>..</string></value>.
func textOf(value string) string {
	value = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(value), "<value>"), "</value>")
	return strings.TrimSuffix(strings.TrimPrefix(value, "<string>"), "</string>")
}
