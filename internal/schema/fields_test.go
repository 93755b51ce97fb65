package schema

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// read returns the fields of a definition and the report of what is wrong with it.
func read(t *testing.T, spec string) (Fields, *Report) {
	t.Helper()
	r := &Report{}
	f, ok := r.Read([]byte(spec))
	if !ok {
		t.Fatalf("%s: %v", spec, r.List())
	}
	return f, r
}

func wantReport(t *testing.T, r *Report, want ...string) {
	t.Helper()
	var got []string
	for _, v := range r.List() {
		got = append(got, v.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

func TestWhole(t *testing.T) {
	f, r := read(t, `{"least":1,"most":10,"over":11,"under":0,"half":1.5,"text":"1","round":3.0}`)
	for name, want := range map[string]int{"least": 1, "most": 10, "round": 3} {
		if got, ok := f.Whole(name, 1, 10); !ok || got != want {
			t.Errorf("%s: %d, %v", name, got, ok)
		}
	}
	for _, name := range []string{"over", "under", "half", "text", "absent"} {
		if got, ok := f.Whole(name, 1, 10); ok {
			t.Errorf("%s: %d", name, got)
		}
	}
	wantReport(t, r, "over: is 11, but must be a whole number from 1 to 10", "under: is 0, but must be a whole number from 1 to 10",
		"half: is 1.5, but must be a whole number from 1 to 10", "text: is a string, but must be a number")
}

func TestNumberIn(t *testing.T) {
	f, r := read(t, `{"least":0.1,"most":1,"over":1.0001,"under":0,"null":null}`)
	for name, want := range map[string]float64{"least": 0.1, "most": 1} {
		if got, ok := f.NumberIn(name, 0.1, 1); !ok || got != want {
			t.Errorf("%s: %v, %v", name, got, ok)
		}
	}
	for _, name := range []string{"over", "under", "null", "absent"} {
		if got, ok := f.NumberIn(name, 0.1, 1); ok {
			t.Errorf("%s: %v", name, got)
		}
	}
	wantReport(t, r, "over: is 1.0001, but must be from 0.1 to 1", "under: is 0, but must be from 0.1 to 1", "null: is null, but must be a number")
}

func TestDurationIn(t *testing.T) {
	f, r := read(t, `{"least":"1ms","most":"60m","sum":"1m30s","over":"1h0.001s","under":"999us","bare":"5","number":5,"empty":"","list":[]}`)
	for name, want := range map[string]time.Duration{"least": time.Millisecond, "most": time.Hour, "sum": 90 * time.Second} {
		if got, ok := f.DurationIn(name, time.Millisecond, time.Hour); !ok || got != want {
			t.Errorf("%s: %v, %v", name, got, ok)
		}
	}
	for _, name := range []string{"over", "under", "bare", "number", "empty", "list", "absent"} {
		if got, ok := f.DurationIn(name, time.Millisecond, time.Hour); ok {
			t.Errorf("%s: %v", name, got)
		}
	}
	wantReport(t, r, `over: "1h0.001s" must be from 1ms to 1h`, `under: "999us" must be from 1ms to 1h`,
		`bare: "5" is not a duration, such as "500ms" or "1m30s"`,
		`number: is the number 5, but must be a duration with its unit, such as "500ms" or "1m30s"`,
		"empty: is empty", "list: is an array, but must be a string")
}

func TestBool(t *testing.T) {
	f, r := read(t, `{"yes":true,"no":false,"text":"true"}`)
	for name, want := range map[string][2]bool{"yes": {true, true}, "no": {false, true}, "text": {}, "absent": {}} {
		if value, ok := f.Bool(name); [2]bool{value, ok} != want {
			t.Errorf("%s: %v, %v", name, value, ok)
		}
	}
	wantReport(t, r, "text: is a string, but must be true or false")
}

func TestStrings(t *testing.T) {
	check := func(s string) error {
		if s == "bad" {
			return errors.New("is bad")
		}
		return nil
	}
	f, r := read(t, `{"good":["a","","a"],"none":[],"mixed":["bad",1,"a",null],"text":"a"}`)
	if got, ok := f.Strings("good", check); !ok || !slices.Equal(got, []string{"a", "", "a"}) {
		t.Errorf("%q, %v", got, ok)
	}
	if got, ok := f.Strings("none", check); !ok || len(got) != 0 {
		t.Errorf("%q, %v", got, ok)
	}
	for _, name := range []string{"mixed", "text", "absent"} {
		if got, ok := f.Strings(name, check); ok {
			t.Errorf("%s: %q", name, got)
		}
	}
	f.Texts("none", check)
	f.Texts("absent", check)
	wantReport(t, r, "mixed[0]: is bad", "mixed[1]: is a number, but must be a string", "mixed[3]: is null, but must be a string",
		"text: is a string, but must be an array", "none: is empty; leave it out")
}

func TestDurationText(t *testing.T) {
	for text, d := range map[string]time.Duration{
		"0s": 0, "1ns": 1, "1.5µs": 1500, "100ms": 100 * time.Millisecond, "10s": 10 * time.Second, "1m": time.Minute, "10m": 10 * time.Minute,
		"1m30s": 90 * time.Second, "1h": time.Hour, "1h10m": 70 * time.Minute, "10h0m10s": 10*time.Hour + 10*time.Second, "24h": 24 * time.Hour,
		"-1m": -time.Minute,
	} {
		if got := DurationText(d); got != text {
			t.Errorf("%s is written %s, want %s", d, got, text)
		}
		if back, err := time.ParseDuration(text); err != nil || back != d {
			t.Errorf("%s is read as %s, %v", text, back, err)
		}
	}
}

func TestCheckMethodPattern(t *testing.T) {
	for s, want := range map[string]string{
		"/shop.Orders/Get": "", "/shop.Orders/*": "", "/Orders/Get": "",
		"":              `"" is not a method; write "/package.Service/Method" or "/package.Service/*"`,
		"shop.Orders/G": `"shop.Orders/G" is not a method; write "/package.Service/Method" or "/package.Service/*"`,
		"/shop.Orders/": `"/shop.Orders/" is not a method; write "/package.Service/Method" or "/package.Service/*"`,
		"//Get":         `"//Get" is not a method; write "/package.Service/Method" or "/package.Service/*"`,
		"/a/b/c":        `"/a/b/c" is not a method; write "/package.Service/Method" or "/package.Service/*"`,
		"/shop.*/Get":   `"/shop.*/Get" has a * that is not the whole method; write "/package.Service/*"`,
		"/a.B/G*":       `"/a.B/G*" has a * that is not the whole method; write "/package.Service/*"`,
		"/a b/c":        `"/a b/c" holds white space or what cannot be printed`,
		"/a.B/c\n":      `"/a.B/c\n" holds white space or what cannot be printed`,
		"/a.B/c\x00":    `"/a.B/c\x00" holds white space or what cannot be printed`,
	} {
		got := ""
		if err := CheckMethodPattern(s); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q\ngot  %s\nwant %s", s, got, want)
		}
	}
}
