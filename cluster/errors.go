package cluster

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// Errors that callers branch on. They arrive wrapped; use errors.Is.
var (
	// ErrQueueFull: the log has reached its size limit and refused the message; it was not accepted.
	ErrQueueFull = errors.New("queue full")
	// ErrTooLarge: the message is larger than the broker's max_payload; it was not accepted.
	ErrTooLarge = errors.New("message too large")
	// ErrShortOfDisk: the broker has too little disk space left; the message was not accepted.
	ErrShortOfDisk = errors.New("short of disk space")
	// ErrStore: the broker could not write to its store, and refuses until it is restarted; the message was not accepted.
	ErrStore = errors.New("store failed")
	// ErrUnavailable: the broker did not answer, and nothing was accepted.
	ErrUnavailable = errors.New("broker unavailable")
	// ErrMaybeAccepted: the broker's answer never came; the message is in the log, or not.
	ErrMaybeAccepted = errors.New("may have been accepted")
	// ErrNotFound: the key was never there, or its delete marker has aged out.
	ErrNotFound = errors.New("not found")
	// ErrWrongRevision: somebody else wrote the key in between; nothing was written.
	ErrWrongRevision = errors.New("wrong revision")
	// ErrFull: all seats are taken.
	ErrFull = errors.New("all seats taken")
	// ErrRewound: the stream ends before a position that was read already: it was restored or made anew.
	ErrRewound = errors.New("stream ends before the position read")
	// ErrLocked: another process uses the data directory.
	ErrLocked = errors.New("data directory in use")
)

// Error codes of nats-server 2.15 (server/errors.json) that decide what happens next.
const (
	codeAccountResources  = 10002
	codeNoPeers           = 10005
	codeNotAvailable      = 10008
	codeNotLeader         = 10009
	codeNoResources       = 10023
	codeNoMessage         = 10037
	codeNoJetStreamHere   = 10039
	codeSequenceNotFound  = 10043
	codeStorageResources  = 10047
	codeTooLarge          = 10054
	codeDeleteFailed      = 10057
	codeStreamExists      = 10058
	codeStreamNotFound    = 10059
	codeWrongLastID       = 10070
	codeWrongSequence     = 10071
	codeNoJetStream       = 10076
	codeStoreFailed       = 10077
	codeHeaderTooLarge    = 10097
	codeStreamOffline     = 10118
	codeIDInProcess       = 10158
	codeSequenceNotReady  = 10163
	codeWrongSequence2    = 10164
	codeTooManyRequests   = 10167
	codeIncompleteBatch   = 10176
	codeStreamOfflineWhy  = 10194
	codeDuplicateInBatch  = 10201
	codeTooManyBatches    = 10210
	schemaVersion         = 1
	schemaVersionMetadata = "co2-schema"
)

// apiCode gives the broker's own error code in err, 0 if there is none.
func apiCode(err error) int {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return int(api.ErrorCode)
	}
	return 0
}

// isWrongSequence tells whether a compare-and-set lost: 10071 on one node, 10164 on several. 10163 says that the leader
// cannot tell yet, which is no loss.
func isWrongSequence(err error) bool {
	code := apiCode(err)
	return code == codeWrongSequence || code == codeWrongSequence2
}

// isFull tells whether a stream with DiscardNew has no room: its limit of bytes or of messages is reached.
func isFull(err error) bool {
	return storeFailedWith(err, "maximum bytes exceeded") || storeFailedWith(err, "maximum messages exceeded")
}

// storeFailedWith reads the reason (server/store.go) out of an error that has one code for all of them.
func storeFailedWith(err error, reason string) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == codeStoreFailed && strings.Contains(api.Description, reason)
}

// isPassing tells whether the broker's refusal is one of a leader change or of load: the request was not carried out and
// may be repeated.
func isPassing(err error) bool {
	switch apiCode(err) {
	case codeNotAvailable, codeNotLeader, codeSequenceNotReady, codeTooManyRequests, codeTooManyBatches,
		codeStreamOffline, codeStreamOfflineWhy, codeNoJetStream, codeNoJetStreamHere:
		return true
	}
	return false
}

// unavailable wraps what went wrong last while nobody answered.
func unavailable(last error) error {
	if last == nil {
		return ErrUnavailable
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, last)
}
