package schema

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	known := []string{"state", "variants", "defaultVariant"}
	for word, want := range map[string]string{
		"state": "state", "STATE": "state", "sate": "state", "tsate": "state", "stat": "state", "states": "state",
		"varianst": "variants", "variant": "variants", "default-variant": "defaultVariant",
		"defaultVarinat": "defaultVariant", "description": "", "name": "", "": "", "statues": "",
		strings.Repeat("x", 1<<20): "",
	} {
		if got, _ := Nearest(word, known); got != want {
			t.Errorf("%.20q is nearest to %q, want %q", word, got, want)
		}
	}
}
