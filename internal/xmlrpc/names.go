package xmlrpc

import "slices"

// A nameSet finds out whether a name occurs twice. A few names are compared
// each with each, without an allocation. Many are sorted: unlike a hash table,
// that cannot be made slow by a choice of names.
type nameSet struct {
	few  [16]string
	n    int
	many []string // the names after the first few
}

func (s *nameSet) reset() { s.n, s.many = 0, s.many[:0] }

func (s *nameSet) add(name string) {
	if s.n < len(s.few) {
		s.few[s.n] = name
		s.n++
		return
	}
	s.many = append(s.many, name)
}

// duplicate returns a name that was added more than once.
func (s *nameSet) duplicate() (string, bool) {
	few := s.few[:s.n]
	if len(s.many) == 0 {
		for i, name := range few {
			if slices.Contains(few[:i], name) {
				return name, true
			}
		}
		return "", false
	}
	s.many = append(s.many, few...)
	slices.Sort(s.many)
	for i := 1; i < len(s.many); i++ {
		if s.many[i] == s.many[i-1] {
			return s.many[i], true
		}
	}
	return "", false
}
