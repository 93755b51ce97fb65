package bulkhead

// Priority is how much a call matters. The zero value is Normal; what lies beyond
// Low or Critical counts as that.
type Priority int8

// Priorities, the least important first.
const (
	Low Priority = iota - 1
	Normal
	High
	Critical
)

const priorities = 4

// ParsePriority reads "low", "normal", "high" or "critical"; "" is Normal.
func ParsePriority(s string) (p Priority, ok bool) {
	switch s {
	case "low":
		return Low, true
	case "normal", "":
		return Normal, true
	case "high":
		return High, true
	case "critical":
		return Critical, true
	}
	return Normal, false
}

// String returns what ParsePriority reads.
func (p Priority) String() string {
	switch p.rank() {
	case 0:
		return "low"
	case 1:
		return "normal"
	case 2:
		return "high"
	default:
		return "critical"
	}
}

// rank is 0 for Low to 3 for Critical.
func (p Priority) rank() int { return int(min(max(p, Low), Critical) - Low) }
