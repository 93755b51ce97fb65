package schema

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
)

// Bool returns a boolean.
func (f Fields) Bool(name string) (value, ok bool) {
	member, present := f.Members[name]
	if !present {
		return false, false
	}
	value, ok = member.(bool)
	if !ok {
		f.Add(f.At(name), "is %s, but must be true or false", TypeName(member))
	}
	return value, ok
}

// Whole returns a whole number from least to most.
func (f Fields) Whole(name string, least, most int) (int, bool) {
	x, ok := f.Number(name)
	switch {
	case !ok:
		return 0, false
	case x != math.Trunc(x) || x < float64(least) || x > float64(most):
		f.Add(f.At(name), "is %v, but must be a whole number from %d to %d", f.Members[name], least, most)
		return 0, false
	}
	return int(x), true
}

// NumberIn returns a number from least to most.
func (f Fields) NumberIn(name string, least, most float64) (float64, bool) {
	x, ok := f.Number(name)
	if ok && (x < least || x > most) {
		f.Add(f.At(name), "is %v, but must be from %v to %v", f.Members[name], least, most)
		return 0, false
	}
	return x, ok
}

// DurationIn returns a duration from least to most, which is a text such as
// "1m30s".
func (f Fields) DurationIn(name string, least, most time.Duration) (time.Duration, bool) {
	if n, ok := f.Members[name].(json.Number); ok {
		f.Add(f.At(name), `is the number %v, but must be a duration with its unit, such as "500ms" or "1m30s"`, n)
		return 0, false
	}
	s, ok := f.Text(name)
	if !ok {
		return 0, false
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		f.Add(f.At(name), `%q is not a duration, such as "500ms" or "1m30s"`, s)
		return 0, false
	case d < least || d > most:
		f.Add(f.At(name), "%q must be from %s to %s", s, DurationText(least), DurationText(most))
		return 0, false
	}
	return d, true
}

// Strings returns the elements of an array of strings, each of which passes
// check. The array may be empty.
func (f Fields) Strings(name string, check func(string) error) ([]string, bool) {
	list, ok := f.Array(name)
	texts := make([]string, 0, len(list))
	for i, value := range list {
		path := f.At(name).Index(i)
		s, is := value.(string)
		if !is {
			f.Add(path, "is %s, but must be a string", TypeName(value))
			ok = false
			continue
		}
		if err := check(s); err != nil {
			f.Add(path, "%v", err)
			ok = false
		}
		texts = append(texts, s)
	}
	return texts, ok
}

// DurationText returns a duration as people write it: "1m30s", and "1h" where
// Duration.String returns "1h0m0s".
func DurationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// CheckMethodPattern accepts "/package.Service/Method" and
// "/package.Service/*", the methods of a service.
func CheckMethodPattern(s string) error {
	rest, slash := strings.CutPrefix(s, "/")
	service, method, ok := strings.Cut(rest, "/")
	switch {
	case !slash || !ok || service == "" || method == "" || strings.Contains(method, "/"):
		return fmt.Errorf(`%q is not a method; write "/package.Service/Method" or "/package.Service/*"`, s)
	case strings.Contains(service, "*") || (method != "*" && strings.Contains(method, "*")):
		return fmt.Errorf(`%q has a * that is not the whole method; write "/package.Service/*"`, s)
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }):
		return fmt.Errorf("%q holds white space or what cannot be printed", s)
	}
	return nil
}
