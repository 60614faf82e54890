// Package satellite makes a Go program a satellite of a co2 relay: what it
// relays, every other registered satellite is notified of, and it is notified
// of what the others relay.
//
//	s, err := satellite.New(satellite.Config{
//		Relay:   "http://relay.example:2003",
//		Listen:  ":7001",
//		Nick:    "lights",
//		Handler: func(ctx context.Context, n satellite.Notification) error {
//			fmt.Println(n.Sender, n.Data)
//			return nil
//		},
//	})
//	if err != nil { … }
//	err = s.Run(ctx) // until ctx ends
//
// Run serves notify and ping, registers, registers again when the relay has
// forgotten the satellite or was away, and deregisters at the end. Start and
// Close do the same beside other work of the program, and Relay sends.
//
// # What the relay promises, and what that asks of a Handler
//
// Every message arrives at least once, in the order of the relay's log. A
// repeat carries the same msg_id; the satellite remembers the last ones
// (Config.Remember) and answers their repeats itself, so that a Handler sees
// each message once for as long as the process lives. It is never called twice
// at a time.
//
// The relay waits only so long for an answer (10 s, unless set otherwise)
// before it repeats the call; a Handler that takes longer delays what follows,
// for this satellite alone, and loses nothing.
//
// # Values
//
// XML-RPC values are Go values. Received: int64, float64, bool, string,
// []byte, time.Time (UTC if the sender named no zone; a string where the form
// is unusual), nil, []any and Struct, which keeps the order of its members. To
// be sent: these, every other kind of integer, float32, json.Number, slices,
// arrays, pointers, and maps with string keys (in the order of the keys). An
// integer beyond 32 bits goes out as a double while that is exact, because old
// parsers know no i8. Strings must be valid UTF-8 without control characters
// other than tab, line feed and carriage return: XML has no others. Send
// anything else as []byte. Times go out in UTC, in whole seconds.
package satellite
