package health

import (
	"cmp"
	"container/heap"
)

// end is when the thing of an instance ends, and where it stands in a heap of ends.
type end struct {
	id    string
	at    int64
	place int
}

// ends is a heap: what ends first comes first, then by id.
type ends []*end

func (s *ends) add(e *end)  { heap.Push(s, e) }
func (s *ends) drop(e *end) { heap.Remove(s, e.place) }

// first returns what ends first; nil if there is nothing.
func (s ends) first() *end {
	if len(s) == 0 {
		return nil
	}
	return s[0]
}

// due returns what ends first, if that is over; else nil.
func (s ends) due(now int64) *end {
	if e := s.first(); e != nil && e.at <= now {
		return e
	}
	return nil
}

// Len, Less, Swap, Push and Pop are for package heap.

func (s ends) Len() int { return len(s) }

func (s ends) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(s[i].at, s[j].at), cmp.Compare(s[i].id, s[j].id)) < 0
}

func (s ends) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].place, s[j].place = i, j
}

func (s *ends) Push(x any) {
	e := x.(*end) //nolint:forcetypeassert // add adds nothing else
	e.place = len(*s)
	*s = append(*s, e)
}

func (s *ends) Pop() any {
	last := len(*s) - 1
	e := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	return e
}
