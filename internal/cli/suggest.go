package cli

import (
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxSuggestions is how many names "did you mean" offers at most.
const maxSuggestions = 3

// suggest returns the names nearest to what was typed, best first: at most a
// third of its letters may differ, or one must begin with the other.
func suggest(typed string, names []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	var found []candidate
	lower := strings.ToLower(typed)
	limit := max(1, utf8.RuneCountInString(typed)/3)
	for _, name := range names {
		other := strings.ToLower(name)
		switch d := distance(lower, other, limit); {
		case d <= limit:
			found = append(found, candidate{name, d})
		case len(lower) >= 3 && (strings.HasPrefix(other, lower) || strings.HasPrefix(lower, other) && len(other) >= 3):
			found = append(found, candidate{name, limit + 1})
		}
	}
	sort.SliceStable(found, func(i, j int) bool {
		if found[i].distance != found[j].distance {
			return found[i].distance < found[j].distance
		}
		return found[i].name < found[j].name
	})
	var out []string
	for _, c := range found[:min(len(found), maxSuggestions)] {
		out = append(out, c.name)
	}
	return out
}

// didYouMean returns a hint, or "" when nothing is near.
func didYouMean(typed string, names []string) string {
	near := suggest(typed, names)
	if len(near) == 0 {
		return ""
	}
	quoted := make([]string, len(near))
	for i, name := range near {
		quoted[i] = strconv.Quote(name)
	}
	return "did you mean " + strings.Join(quoted, " or ") + "?"
}

// distance is the number of insertions, deletions, replacements and swaps of
// neighbours that turn a into b; more than limit is returned as limit+1.
func distance(a, b string, limit int) int {
	x, y := []rune(a), []rune(b)
	if d := len(x) - len(y); d > limit || -d > limit {
		return limit + 1
	}
	before := make([]int, len(y)+1)
	previous := make([]int, len(y)+1)
	current := make([]int, len(y)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(x); i++ {
		current[0] = i
		best := i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			current[j] = min(previous[j]+1, current[j-1]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				current[j] = min(current[j], before[j-2]+1)
			}
			best = min(best, current[j])
		}
		if best > limit {
			return limit + 1
		}
		before, previous, current = previous, current, before
	}
	return min(previous[len(y)], limit+1)
}
