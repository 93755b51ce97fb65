package schema

import (
	"fmt"
	"strings"
	"unicode"
)

// DidYouMean returns "; did you mean …?" when a word is nearly one of the known
// ones, otherwise "".
func DidYouMean(word string, known []string) string {
	if k, ok := Nearest(word, known); ok {
		return fmt.Sprintf("; did you mean %q?", k)
	}
	return ""
}

// Nearest returns the known word that a word was probably meant to be: the same
// but for case, '_' and '-', or one typing mistake away, two in a longer word.
func Nearest(word string, known []string) (string, bool) {
	const longer = 8
	best, least := "", 3
	for _, k := range known {
		a, b := plain(word), plain(k)
		allowed := 1
		if len(b) >= longer {
			allowed = 2
		}
		if max(len(a)-len(b), len(b)-len(a)) > allowed {
			continue // also bounds the work for a hostile word
		}
		if d := mistakes(a, b); d <= allowed && d < least {
			best, least = k, d
		}
	}
	return best, best != ""
}

func plain(word string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' {
			return -1
		}
		return unicode.ToLower(r)
	}, word)
}

// mistakes counts the bytes to insert, remove, change, or swap with their
// neighbour to turn a into b.
func mistakes(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			changed := row[j-1]
			if a[i-1] != b[j-1] {
				changed++
			}
			next[j] = min(changed, row[j]+1, next[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
