package faults

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// table gathers what the tests of this run counted; it is printed at the end.
var table struct {
	mu   sync.Mutex
	rows []string
}

const tableHead = "| fault | satellites | accepted | refused | calls | lost | repeated | out of order | longest pause | remarks |\n" +
	"|---|---|---|---|---|---|---|---|---|---|\n"

// report adds a row, and checks what holds in every fault: nothing accepted is
// lost, nothing comes out of order, one msg_id is one message for all.
func (c tally) report(t *testing.T, fault, remarks string, args ...any) {
	t.Helper()
	row := fmt.Sprintf("| %s | %d | %d | %d | %d | %d | %d | %d | %s | %s |", fault, c.satellites, c.accepted, c.refused, c.calls,
		c.lost, c.repeated, c.disorder, c.pause.Round(10*time.Millisecond), fmt.Sprintf(remarks, args...))
	t.Log(row)
	table.mu.Lock()
	table.rows = append(table.rows, row)
	table.mu.Unlock()
	if c.lost != 0 || c.disorder != 0 || c.wrong != 0 || c.denied != 0 {
		t.Errorf("got %d lost, %d out of order, %d under another msg_id, %d delivered that were called not accepted; want none",
			c.lost, c.disorder, c.wrong, c.denied)
	}
}

func printTable(w io.Writer) {
	table.mu.Lock()
	defer table.mu.Unlock()
	if len(table.rows) > 0 {
		fmt.Fprint(w, "\n", tableHead, strings.Join(table.rows, "\n"), "\n\n")
	}
}
