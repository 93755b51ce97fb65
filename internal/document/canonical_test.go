package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestCanonical(t *testing.T) {
	nested := strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)
	for _, c := range []struct{ name, src, want string }{
		{"white space", " \t\r\n{ \"a\" : [ 1 , 2 ] , \"b\" : { } , \"c\" : [ ] } ", `{"a":[1,2],"b":{},"c":[]}`},
		{"keys by bytes", `{"b":1,"a":2,"B":3,"":4,"aa":5}`, `{"":4,"B":3,"a":2,"aa":5,"b":1}`},
		// By UTF-16, as RFC 8785 sorts, the astral character would come first.
		{"keys by UTF-8", `{"😀":1,"ﬀ":2}`, `{"ﬀ":2,"😀":1}`},
		{"keys by what they mean", `{"\u0062":1,"a":2}`, `{"a":2,"b":1}`},
		{"keys with escapes", `{"a\"":1,"a!":2,"a#":3}`, `{"a!":2,"a\"":1,"a#":3}`},
		{"nested order", `{"z":{"b":[{"d":1,"c":2}],"a":0},"y":1}`, `{"y":1,"z":{"a":0,"b":[{"c":2,"d":1}]}}`},
		{"words", `[true,false,null]`, `[true,false,null]`},
		{"escapes", `"\"\\\/\b\f\n\r\t\u0000\u001F\u007f"`, `"\"\\/\b\f\n\r\t\u0000\u001f` + "\x7f\""},
		{"no escapes needed", `"<>&\u2028é\ud83d\ude00"`, "\"<>&\u2028é😀\""},
		{"scalar", ` "x" `, `"x"`},
		{"deep", nested, nested},
		{"integers", `[0,-0,1,-1,9007199254740991,-9007199254740991]`, `[0,0,1,-1,9007199254740991,-9007199254740991]`},
		{"integers in disguise", `[1.0,-0.0,1e2,1E+2,100e-2,0e99,9007199254740991.0]`, `[1,0,100,100,1,0,9007199254740991]`},
		// From RFC 8785, appendix B, and ECMA-262, Number::toString.
		{"fractions", `[0.1,1.50,333333333.33333329,5E-324]`, `[0.1,1.5,333333333.3333333,5e-324]`},
		{"small fractions", `[1.0e-6,0.0000009999999999999997,0.0000001,-1.5e-10]`, `[0.000001,9.999999999999997e-7,1e-7,-1.5e-10]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Canonical([]byte(c.src))
			if err != nil || string(got) != c.want {
				t.Errorf("got %s, %v\nwant %s", got, err, c.want)
			}
		})
	}
}

func TestCanonicalRefuses(t *testing.T) {
	deep := strings.Repeat("[", MaxDepth+1)
	for _, c := range []struct {
		name, src, path string
		offset          int
		msg             string
	}{
		{"nothing", ``, "", 0, "the document ends where a value is expected"},
		{"more", `1 2`, "", 2, "data after the end of the document"},
		{"byte order mark", "\ufeff{}", "", 0, `'\ufeff' where a value is expected`},
		{"no value", `{"a":}`, "a", 5, `'}' where a value is expected`},
		{"no colon", `{"a" 1}`, "", 5, `'1' where ':' is expected`},
		{"no key", `{"a":1,}`, "", 7, `'}' where a key in quotes is expected`},
		{"bare key", `{a:1}`, "", 1, `'a' where a key in quotes is expected`},
		{"no comma", `[1 2]`, "", 3, `'2' where ',' or ']' is expected`},
		{"no end", `{"a":[1`, "a", 7, "the document ends where ',' or ']' is expected"},
		{"duplicate", `{"targeting":{"if":[{"a":1,"b":2,"\u0061":3}]}}`, "targeting.if[0]", 33, `duplicate key "a"`},
		{"odd keys", `{"a b":{"c":[x]}}`, `["a b"].c[0]`, 13, `'x' where a value is expected`},
		{"depth", deep, strings.Repeat("[0]", MaxDepth), MaxDepth, "nested deeper than 64 levels"},
		{"UTF-8", "[\"a\xffb\"]", "[0]", 3, "invalid UTF-8"},
		{"UTF-8 after escape", "\"\\n\xc3\"", "", 3, "invalid UTF-8"},
		{"UTF-8 before escape", "\"\xc3\\n\"", "", 1, "invalid UTF-8"},
		{"UTF-8 surrogate", "\"\xed\xa0\x80\"", "", 1, "invalid UTF-8"},
		{"lone high", `"\ud800"`, "", 1, `\ud800 is half of a surrogate pair`},
		{"lone low", `"x\udc00"`, "", 2, `\udc00 is half of a surrogate pair`},
		{"high high", `"\ud800\ud800"`, "", 1, `\ud800 is half of a surrogate pair`},
		{"escape", `"\x41"`, "", 1, `unknown escape \x`},
		{"short escape", `"\u12"`, "", 1, `\u without four hexadecimal digits`},
		{"control", "\"a\nb\"", "", 2, "control character U+000A in a string"},
		{"control after escape", "\"\\t\x00\"", "", 3, "control character U+0000 in a string"},
		{"open string", `["abc`, "[0]", 1, "string without an end"},
		{"open escape", `"\`, "", 1, "string without an end"},
		{"leading zero", `{"a":[0,-012]}`, "a[1]", 9, "number with a leading zero"},
		{"only minus", `-`, "", 1, "number without digits"},
		{"only point", `1.`, "", 2, "number without digits after the point"},
		{"only exponent", `1e+`, "", 3, "number without digits in the exponent"},
		{"plus", `+1`, "", 0, `'+' where a value is expected`},
		{"too large", `[9007199254740992]`, "[0]", 1, "number 9007199254740992 is beyond ±9007199254740991"},
		{"too small", `-9007199254740992`, "", 0, "number -9007199254740992 is beyond ±9007199254740991"},
		{"beyond int64", `99999999999999999999`, "", 0, "number 99999999999999999999 is beyond ±9007199254740991"},
		{"large exponent", `1e300`, "", 0, "number 1e300 is beyond ±9007199254740991"},
		{"overflow", `-1e999`, "", 0, "number -1e999 is beyond ±9007199254740991"},
		{"underflow", `1e-999`, "", 0, "number 1e-999 is too small for a float64"},
		{"rounds up", `9007199254740991.5`, "", 0, "number 9007199254740991.5 is beyond ±9007199254740991"},
		{"almost a word", `[nul]`, "[0]", 1, `'n' where a value is expected`},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := Canonical([]byte(c.src))
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || out != nil {
				t.Fatalf("got %s, %v", out, err)
			}
			if want := (SyntaxError{c.path, c.offset, c.msg}); *syntax != want {
				t.Errorf("got  %+v\nwant %+v", *syntax, want)
			}
		})
	}
}

func TestSyntaxErrorText(t *testing.T) {
	_, err := Canonical([]byte(`{"targeting":{"if":[{"a":1,"a":2}]}}`))
	if got, want := fmt.Sprint(err), `targeting.if[0]: duplicate key "a" (byte 27)`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestCanonicalAgainstTwin compares with the standard library, on documents in
// a random order with random white space.
func TestCanonicalAgainstTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := valueGen(3).Draw(t, "value")
		var src bytes.Buffer
		spell(t, &src, value)
		got, err := Canonical(src.Bytes())
		if err != nil {
			t.Fatalf("refused %s: %v", src.Bytes(), err)
		}
		if want := twinJSON(value); string(got) != want {
			t.Fatalf("of %s\ngot  %s\nwant %s", src.Bytes(), got, want)
		}
		if again, err := Canonical(got); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("canonical form of %s is %s, %v", got, again, err)
		}
	})
}

func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{
		`{"b":[1.50,-0,1e-7],"a":{"x":"\ud83d\ude00\n"}}`, `{"a":1,"a":2}`, "\"\xff\"", `[[[[]]]]`, `9007199254740993`, `{"a\u0000":"<\/>"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		before := slices.Clone(src)
		out, err := Canonical(src)
		if !bytes.Equal(src, before) {
			t.Fatal("changed its argument")
		}
		if err != nil {
			checkRefusal(t, src, err)
			return
		}
		again, err := Canonical(out)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("canonical form of %q is %q, %v", out, again, err)
		}
		var a, b any
		if err := json.Unmarshal(src, &a); err != nil {
			t.Fatalf("accepted %q: %v", src, err)
		}
		if err := json.Unmarshal(out, &b); err != nil || !reflect.DeepEqual(a, b) {
			t.Fatalf("%q became %q: %v", src, out, err)
		}
	})
}

// checkRefusal checks that what encoding/json reads is refused only for one of
// the reasons that are documented.
func checkRefusal(t *testing.T, src []byte, err error) {
	t.Helper()
	var syntax *SyntaxError
	if !errors.As(err, &syntax) || syntax.Offset < 0 || syntax.Offset > len(src) || syntax.Msg == "" || !utf8.ValidString(syntax.Path) {
		t.Fatalf("refused %q with %#v", src, err)
	}
	if !json.Valid(src) {
		return
	}
	for _, reason := range []string{"duplicate key", "invalid UTF-8", "surrogate pair", "nested deeper", "is beyond", "too small"} {
		if strings.Contains(syntax.Msg, reason) {
			return
		}
	}
	t.Fatalf("refused %q: %v", src, err)
}

func BenchmarkCanonical(b *testing.B) {
	src := []byte(`{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off",
		"targeting":{"if":[{"ends_with":[{"var":"email"},"@example.com"]},"on","off"]},"description":"A new checkout"}`)
	canonical, err := Canonical(src)
	if err != nil {
		b.Fatal(err)
	}
	for name, src := range map[string][]byte{"unordered": src, "canonical": canonical} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(src)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Canonical(src); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func valueGen(depth int) *rapid.Generator[any] {
	scalars := []*rapid.Generator[any]{
		rapid.Just[any](nil),
		rapid.Bool().AsAny(),
		textGen().AsAny(),
		rapid.Map(rapid.Int64Range(-MaxInteger, MaxInteger), func(n int64) any { return float64(n) }),
		rapid.Map(rapid.Float64Range(-MaxInteger, MaxInteger), func(f float64) any { return f + 0 }),
		rapid.Map(rapid.Float64Range(-1e-5, 1e-5), func(f float64) any { return f + 0 }),
	}
	if depth == 0 {
		return rapid.OneOf(scalars...)
	}
	below := rapid.Deferred(func() *rapid.Generator[any] { return valueGen(depth - 1) })
	return rapid.OneOf(append(scalars,
		rapid.SliceOfN(below, 0, 4).AsAny(),
		rapid.MapOfN(textGen(), below, 0, 5).AsAny(),
	)...)
}

// textGen leaves out what encoding/json escapes without need.
func textGen() *rapid.Generator[string] {
	return rapid.StringOfN(rapid.OneOf(rapid.Rune(), rapid.RuneFrom([]rune("ab\"\\/\n\x01\x1f<é😀"))), 0, 6, -1).
		Filter(func(s string) bool { return utf8.ValidString(s) && !strings.ContainsAny(s, "\u2028\u2029") })
}

// spell writes a value in one of its many spellings.
func spell(t *rapid.T, w *bytes.Buffer, value any) {
	space := rapid.SampledFrom([]string{"", "", " ", "\n\t"}).Draw(t, "space")
	w.WriteString(space)
	defer w.WriteString(space)
	switch v := value.(type) {
	case []any:
		w.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				w.WriteByte(',')
			}
			spell(t, w, e)
		}
		w.WriteByte(']')
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		w.WriteByte('{')
		for i, k := range rapid.Permutation(keys).Draw(t, "order") {
			if i > 0 {
				w.WriteByte(',')
			}
			spell(t, w, k)
			w.WriteByte(':')
			spell(t, w, v[k])
		}
		w.WriteByte('}')
	case string:
		if rapid.Bool().Draw(t, "escaped") {
			w.WriteString(`"` + asciiEscapes(v) + `"`)
			return
		}
		w.WriteString(twinJSON(v))
	case float64:
		format := rapid.SampledFrom([]string{"%.17e", "%.17g", "%v"}).Draw(t, "format")
		fmt.Fprintf(w, format, v)
	default:
		w.WriteString(twinJSON(v))
	}
}

// asciiEscapes spells every character as \\uXXXX.
func asciiEscapes(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r > math.MaxUint16 {
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04X\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
			continue
		}
		fmt.Fprintf(&b, `\u%04x`, r)
	}
	return b.String()
}

func twinJSON(value any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		panic(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
