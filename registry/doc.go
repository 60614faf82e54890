// Package registry owns what a satellite is: its id, its registration in the
// broker's bucket SATELLITES, its place among the seats, and its figures in
// the bucket STATS.
//
// Every process holds a view of all registrations, which follows the bucket.
// The view may be behind; what must be exact (a registration, a
// deregistration, the limit on their number) is decided at the broker's
// leader by compare-and-set and never by the view.
package registry
