package policy

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/internal/schema"
)

// value is a type of values: how one is read, and written as a JSON encoder takes
// it.
type value[T any] struct {
	// What the documentation says of it.
	kind, unit, span string
	read             func(f schema.Fields, name string) (T, bool)
	json             func(T) any
}

func itself[T any](x T) any { return x }

func wholes(unit string, least, most int) value[int] {
	return value[int]{
		kind: "whole number", unit: unit, span: fmt.Sprintf("%d to %d", least, most), json: itself[int],
		read: func(f schema.Fields, name string) (int, bool) { return f.Whole(name, least, most) },
	}
}

func numbers(unit string, least, most float64) value[float64] {
	return value[float64]{
		kind: "number", unit: unit, span: fmt.Sprintf("%v to %v", least, most), json: itself[float64],
		read: func(f schema.Fields, name string) (float64, bool) { return f.NumberIn(name, least, most) },
	}
}

func durations(least, most time.Duration) value[time.Duration] {
	return value[time.Duration]{
		kind: "duration", span: schema.DurationText(least) + " to " + schema.DurationText(most),
		read: func(f schema.Fields, name string) (time.Duration, bool) { return f.DurationIn(name, least, most) },
		json: func(d time.Duration) any { return schema.DurationText(d) },
	}
}

func booleans() value[bool] {
	return value[bool]{kind: "boolean", json: itself[bool], read: schema.Fields.Bool}
}

// resourceNames are texts that can name something; "" names nothing.
func resourceNames() value[string] {
	return value[string]{
		kind: "name", json: itself[string],
		read: func(f schema.Fields, name string) (string, bool) {
			if f.Members[name] == "" {
				return "", true
			}
			return f.Name(name)
		},
	}
}

func words[T ~string](of ...T) value[T] {
	texts := plain(of)
	return value[T]{
		kind: "word", span: strings.Join(texts, ", "), json: itself[T],
		read: func(f schema.Fields, name string) (T, bool) {
			s, ok := f.Choice(name, texts...)
			return T(s), ok
		},
	}
}

func plain[T ~string](words []T) []string {
	texts := make([]string, len(words))
	for i, word := range words {
		texts[i] = string(word)
	}
	return texts
}

// lists are arrays of texts that pass check.
func lists(kind, span string, check func(string) error) value[[]string] {
	return value[[]string]{
		kind: kind, span: span,
		read: func(f schema.Fields, name string) ([]string, bool) { return f.Strings(name, check) },
		json: func(list []string) any { return append([]string{}, list...) }, // never null
	}
}

// codeSets are arrays of the names of codes.
func codeSets() value[Codes] {
	list := lists("list", "codes of gRPC", func(s string) error { return schema.CheckChoice(s, ErrorNames()) })
	return value[Codes]{
		kind: list.kind, span: list.span,
		read: func(f schema.Fields, name string) (Codes, bool) {
			names, ok := list.read(f, name)
			return codesOf(names...), ok
		},
		json: func(c Codes) any { return c.Names() },
	}
}

// ramps are arrays of rising shares.
func ramps(most int) value[[]float64] {
	return value[[]float64]{
		kind: "list", span: fmt.Sprintf("up to %d numbers, rising, between 0 and 1", most),
		read: func(f schema.Fields, name string) ([]float64, bool) { return readRamp(f, name, most) },
		json: func(ramp []float64) any { return append([]float64{}, ramp...) },
	}
}

func readRamp(f schema.Fields, name string, most int) ([]float64, bool) {
	list, ok := f.Array(name)
	if len(list) > most {
		f.Add(f.At(name), "has %d steps; at most %d are allowed", len(list), most)
		return nil, false
	}
	var ramp []float64
	before := 0.0
	for i, element := range list {
		n, isNumber := element.(json.Number)
		x, err := n.Float64()
		switch path := f.At(name).Index(i); {
		case !isNumber:
			f.Add(path, "is %s, but must be a number", schema.TypeName(element))
			return nil, false
		case err != nil || x <= before || x >= 1:
			f.Add(path, "is %v, but must be more than %v and less than 1", n, before)
			return nil, false
		}
		ramp, before = append(ramp, x), x
	}
	return ramp, ok
}

// jitters are words, numbers and booleans: see Jitter.
func jitters() value[Jitter] {
	kinds := []JitterKind{NoJitter, FullJitter, EqualJitter, DecorrelatedJitter}
	word := words(kinds...)
	return value[Jitter]{
		kind: "word or number", unit: "share of the pause", span: word.span + ", 0 to 1",
		read: func(f schema.Fields, name string) (Jitter, bool) {
			switch value := f.Members[name].(type) {
			case bool:
				if value {
					return Jitter{Kind: FullJitter}, true
				}
				return Jitter{Kind: NoJitter}, true
			case json.Number:
				share, ok := f.NumberIn(name, 0, 1)
				if share == 0 {
					return Jitter{Kind: NoJitter}, ok
				}
				return Jitter{Kind: ShareJitter, Share: share}, ok
			case string:
				kind, ok := word.read(f, name)
				return Jitter{Kind: kind}, ok
			default:
				f.Add(f.At(name), "is %s, but must be one of %s, or a number from 0 to 1", schema.TypeName(value), word.span)
				return Jitter{}, false
			}
		},
		json: func(j Jitter) any {
			if j.Kind == ShareJitter {
				return j.Share
			}
			return j.Kind
		},
	}
}

// callLists are arrays of calls; "*" is all of them.
func callLists() value[[]string] {
	return lists("list", "methods, operations, `*`", func(s string) error {
		if s == "*" {
			return nil
		}
		return checkCall(s)
	})
}

// wordLists are arrays of words.
func wordLists(of ...string) value[[]string] {
	return lists("list", strings.Join(of, ", "), func(s string) error { return schema.CheckChoice(s, of) })
}
