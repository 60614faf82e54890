// Package cluster owns the broker: an embedded nats-server or a connection to one or several elsewhere, the streams and
// buckets that the relay keeps there, reading and writing them, and (with Member) who owns which partition.
//
// Three rules run through all of it.
//
//   - What must be exact is asked of a stream's leader: positions, registrations, seats, checkpoints. Copies on other
//     nodes answer late.
//   - A push from the broker is only a hint. Whoever follows a stream compares its position with the stream's end each
//     second and heals itself (follower).
//   - An answer that never came is an unknown outcome, not a failure. What is safe to repeat is repeated under the same
//     message id; everything else says so (ErrMaybeAccepted, or an error that leaves the caller to read again).
package cluster
