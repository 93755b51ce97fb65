package fleet

import (
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/health"
)

// TestNews: what others conclude something else from is said at once.
func TestNews(t *testing.T) {
	for name, c := range map[string]struct {
		said, is health.Report
		want     wish
	}{
		"it goes on finding it broken": {
			health.Report{Opinion: health.Open, Round: 1}, health.Report{Opinion: health.Probing, Round: 1}, repeat,
		},
		"it was well and is suspected": {
			health.Report{Opinion: health.Well}, health.Report{Opinion: health.Suspects}, news,
		},
		"it was well and is broken": {
			health.Report{Opinion: health.Well}, health.Report{Opinion: health.Open}, news,
		},
		"those who probe have another round": {
			health.Report{Opinion: health.Open, Round: 1}, health.Report{Opinion: health.Open, Round: 2}, news,
		},
		"others have another round": {
			health.Report{Opinion: health.Hearsay, Round: 1}, health.Report{Opinion: health.Hearsay, Round: 2}, repeat,
		},
		"a probe went well": {
			health.Report{Opinion: health.Open, Round: 1}, health.Report{Opinion: health.Recovering, Round: 1, Probe: health.Good}, news,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := spoken{said: c.said}
			if got, _ := s.wish(1, &c.is, health.Later, func() time.Duration { return time.Second }); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}
