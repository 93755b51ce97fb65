package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// How long an override may last.
const (
	minFor = time.Second
	maxFor = 30 * 24 * time.Hour
)

// maxDays keeps the number of days within what a time.Duration can hold.
const maxDays = 106_000

// parseDuration reads Go's notation with days and weeks in front of it: "30m",
// "1h30m", "2d", "1d12h". A number without a unit is refused: 30 what?
func parseDuration(s string) (time.Duration, error) {
	bad := func() error {
		return fmt.Errorf("%q is not a duration; write 90s, 30m, 2h, 1h30m or 1d", s)
	}
	text := strings.TrimSpace(s)
	if text == "" {
		return 0, bad()
	}
	var total time.Duration
	if number, rest, ok := strings.Cut(text, "d"); ok {
		days, err := strconv.ParseFloat(number, 64)
		if err != nil || math.IsNaN(days) || days < 0 || days > maxDays || strings.ContainsAny(number, "eExXpP_iInN") {
			return 0, bad()
		}
		total, text = time.Duration(days*24*float64(time.Hour)), rest
		if text == "" {
			return total, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || strings.HasPrefix(text, "+") || total+d < total {
		return 0, bad()
	}
	return total + d, nil
}

// parseFor reads the time for which an override lasts.
func parseFor(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	switch {
	case err != nil:
		return 0, usage("--for: %v", err)
	case d < minFor || d > maxFor:
		return 0, usage("--for %s: an override lasts from 1s to 30d", s).
			hint("what is meant to stay belongs into a definition: change the flag or mode with `holdfast apply`")
	}
	return d, nil
}

// human writes a duration in at most two units, rounded down: "2d3h", "29m",
// "1h5m", "12s". Below a second it says "0s".
func human(d time.Duration) string {
	if d < 0 {
		d = 0
	}
	units := []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}
	for i, u := range units {
		if d < u.size {
			continue
		}
		out := strconv.FormatInt(int64(d/u.size), 10) + u.name
		if i+1 < len(units) {
			if next := d % u.size / units[i+1].size; next > 0 {
				out += strconv.FormatInt(int64(next), 10) + units[i+1].name
			}
		}
		return out
	}
	return "0s"
}

// humanLimit is human for a time that may be shorter than a second.
func humanLimit(d time.Duration) string {
	if 0 < d && d < time.Second {
		return max(d.Truncate(time.Millisecond), time.Millisecond).String()
	}
	return human(d)
}

// humanRemaining is human rounded up, to the minute from five minutes on and to
// the hour from a day on, so that what was just set for 30 minutes does not read
// 29m59s.
func humanRemaining(d time.Duration) string {
	unit := time.Second
	switch {
	case d <= 0:
		return "due"
	case d >= 24*time.Hour:
		unit = time.Hour
	case d >= 5*time.Minute:
		unit = time.Minute
	}
	return human((d + unit - 1).Truncate(unit))
}

// humanBytes writes a size with a binary unit.
func humanBytes(n uint64) string {
	const step = 1024
	if n < step {
		return strconv.FormatUint(n, 10) + " B"
	}
	value, unit := float64(n)/step, 0
	for value >= step && unit < 3 {
		value, unit = value/step, unit+1
	}
	return strconv.FormatFloat(value, 'f', 1, 64) + " " + []string{"KiB", "MiB", "GiB", "TiB"}[unit]
}

// humanCount writes a number with commas between thousands.
func humanCount(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
