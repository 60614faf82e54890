package satellite

import "time"

// SetRepeatFor shortens for how long a message of unknown outcome is repeated.
func (s *Satellite) SetRepeatFor(d time.Duration) { s.repeatFor = d }
