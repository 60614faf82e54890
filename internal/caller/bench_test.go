package caller

import (
	"fmt"
	"net/netip"
	"testing"
)

// BenchmarkParser reads the answer of a usual satellite, in one piece and in two.
func BenchmarkParser(b *testing.B) {
	raw := []byte(answerOf(fmt.Sprintf("HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: %d", len(okBody)), okBody))
	for _, pieces := range [][][]byte{{raw}, {raw[:40], raw[40:]}} {
		b.Run(fmt.Sprintf("pieces=%d", len(pieces)), func(b *testing.B) {
			var p Parser
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				p.Reset()
				var done bool
				var err error
				for _, piece := range pieces {
					done, err = p.Feed(piece)
				}
				if !done || err != nil {
					b.Fatal(done, err)
				}
				if v, _ := p.Answer().Verdict(); v != Received {
					b.Fatal(v)
				}
			}
		})
	}
}

func BenchmarkAppendRequest(b *testing.B) {
	t := Target{Addr: netip.MustParseAddrPort("192.0.2.7:9001")}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = AppendRequest(out[:0], t, 700)
		b.SetBytes(int64(len(out)))
	}
}
