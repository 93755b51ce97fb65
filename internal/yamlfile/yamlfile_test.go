package yamlfile

import (
	"encoding/json"
	"errors"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestSplitYAMLKeepsLines(t *testing.T) {
	src := "# head\n---\na: 1\n---\n# only a comment\n---\n\nb: 2\n...\nc: 3\n--- # d\nd: 4\n"
	type part struct {
		text   string
		before int
	}
	var got []part
	for _, c := range splitYAML([]byte(src)) {
		got = append(got, part{string(c.text), c.before})
	}
	want := []part{{"---\na: 1\n", 1}, {"---\n\nb: 2\n", 5}, {"c: 3\n", 9}, {"--- # d\nd: 4\n", 10}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestYAMLValues(t *testing.T) {
	for _, test := range []struct{ src, want string }{
		{"a: on\nb: off\nc: yes\nd: y", `{"a":"on","b":"off","c":"yes","d":"y"}`},
		{"a: true\nb: False\nc: null\nd: ~\ne:", `{"a":true,"b":false,"c":null,"d":null,"e":null}`},
		{"a: 1\nb: -0x10\nc: 1_000\nd: 1.50\ne: 1e3\nf: 0o17", `{"a":1,"b":-16,"c":1000,"d":1.5,"e":1000,"f":15}`},
		{"a: 2026-01-31\nb: 12:30", `{"a":"2026-01-31","b":"12:30"}`},
		{"1: x\ntrue: y\n1.5: z", `{"1":"x","true":"y","1.5":"z"}`},
		{"base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3", `{"base":{"x":1,"y":2},"use":{"y":3,"x":1}}`},
		{"a: |\n  <&>\n  two\n", `{"a":"<&>\ntwo\n"}`},
		{"- a\n- [b, {c: d}]", `["a",["b",{"c":"d"}]]`},
	} {
		nodes, faults := parseYAML([]byte(test.src))
		if len(faults) > 0 || len(nodes) != 1 {
			t.Errorf("%q: %v, %d documents", test.src, faults, len(nodes))
			continue
		}
		if got := string(nodes[0].AppendJSON(nil)); got != test.want {
			t.Errorf("%q:\n got %s\nwant %s", test.src, got, test.want)
		}
	}
}

func TestYAMLFaultsNameTheLine(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'h'; c++ {
		bomb += string(c) + ": &" + string(c) + " [" + strings.Repeat("*"+string(c-1)+",", 9) + "*" + string(c-1) + "]\n"
	}
	for _, test := range []struct {
		name, src string
		line      int
		msg       string
	}{
		{"twice", "a: 1\nb: 2\na: 3\n", 3, `"a" occurs twice`},
		{"later document", "a: 1\n---\nb: 1\n---\nx: 1\nx: 2\n", 6, `"x" occurs twice`},
		{"infinite", "a:\n  b: .inf\n", 2, "JSON"},
		{"not a number", "a: .nan\n", 1, "JSON"},
		{"inexact", "a: 123456789012345678901234567890\n", 1, "2^53-1"},
		{"tag", "a: !secret x\n", 1, "the tag !secret is"},
		{"tag of control characters", "a: !a%1Bb x\n", 1, `the tag !a\x1bb is`},
		{"binary", "a: !!binary aGk=\n", 1, "!!binary"},
		{"list as key", "? [a]\n: b\n", 1, "key must be a string"},
		{"null as key", "~: b\n", 1, "key must be a string"},
		{"merge of a number", "a:\n  <<: 3\n", 2, "<< needs a mapping"},
		{"syntax", "a: 1\nb: [\n", 2, "not YAML"},
		{"alias bomb", bomb, 0, "expand to more than"},
		{"deep", strings.Repeat("[", 70) + strings.Repeat("]", 70), 1, "nested deeper"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, faults := parseYAML([]byte(test.src))
			if len(faults) != 1 || !strings.Contains(faults[0].Msg, test.msg) || test.line > 0 && faults[0].Line != test.line {
				t.Errorf("got %v, want line %d: %s", faults, test.line, test.msg)
			}
		})
	}
}

// TestSpelledOutValuesAreNotCounted reads more values than aliases may expand to.
func TestSpelledOutValuesAreNotCounted(t *testing.T) {
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for range MaxNodes + 1 {
		list.Content = append(list.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: "1"})
	}
	r := yamlReader{}
	if n, err := r.value(list, 0); err != nil || len(n.Items) != MaxNodes+1 {
		t.Fatal(err)
	}
}

func TestJSONFaultsNameTheLine(t *testing.T) {
	for _, test := range []struct {
		src  string
		line int
		msg  string
	}{
		{"{\n\"a\": 1,\n\"a\": 2}", 3, "occurs twice"},
		{"{\n\"a\": 1,\n}", 3, "not JSON"},
		{"{\n\"a\": 1\n", 3, "middle of a value"},
		{"{\"a\":\n tru}", 2, "not JSON"},
		{strings.Repeat("[", 70) + strings.Repeat("]", 70), 1, "nested deeper"},
	} {
		_, err := parseJSON([]byte(test.src))
		fault, ok := errors.AsType[*Fault](err)
		if !ok || fault.Line != test.line || !strings.Contains(fault.Msg, test.msg) {
			t.Errorf("%q: got %v, want line %d: %s", test.src, err, test.line, test.msg)
		}
	}
}

func TestParseTellsJSONFromYAML(t *testing.T) {
	for _, test := range []struct {
		name, src string
		docs      int
		fault     string
	}{
		{"a.json", `{"a":1} {"b":2}`, 2, ""},
		{"a.json", "a: 1", 0, "not JSON"},
		{"a.yaml", "{a: 1}", 1, ""},
		{"<stdin>", "{a: 1}", 1, ""},
		{"<stdin>", "  {\"a\":\t1}", 1, ""},
		{"<stdin>", `{"a":1,}}`, 0, "not JSON"},
		{"<stdin>", "a: 1\n---\nb: 2", 2, ""},
		{"a.yaml", "a: \xff", 0, "UTF-8"},
		{"a.yaml", "\xef\xbb\xbfa: 1", 1, ""},
		{"a.yaml", "", 0, ""},
	} {
		docs, faults := Parse(test.name, []byte(test.src))
		if test.fault == "" && (len(faults) > 0 || len(docs) != test.docs) {
			t.Errorf("%s %q: %d documents, %v", test.name, test.src, len(docs), faults)
		}
		if test.fault != "" && (len(faults) != 1 || !strings.Contains(faults[0].Msg, test.fault)) {
			t.Errorf("%s %q: %v, want %s", test.name, test.src, faults, test.fault)
		}
	}
}

func TestLocate(t *testing.T) {
	nodes, _ := parseYAML([]byte("levels:\n  - name: a\n  - name: b\n    effects:\n      - {}\nvariants:\n  a.b: 1\n  a: {c: 2}\n"))
	for path, line := range map[string]int{
		"":                     1,
		"levels":               1,
		"levels[1].name":       3,
		"levels[1].effects[0]": 5,
		"/levels/1/effects":    4,
		"levels[7]":            1,
		"variants.a.b":         7,
		"variants.a.c":         8,
		`variants["a.b"]`:      7,
		"nothing":              1,
	} {
		if got := nodes[0].Locate(path).Line; got != line {
			t.Errorf("%q: line %d, want %d", path, got, line)
		}
	}
}

func TestYAMLOutputReadsBack(t *testing.T) {
	src := `{"on":"off","y":"no","n":null,"num":[1,1.5,1e+30,-0.25],"s":["1","true","null","","12:30:45","2026-01-31","a: b","- x","#c","<<","~","  pad ","line\nbreak","\u0001"],"e":{},"l":[]}`
	read, faults := Parse("a.json", []byte(src))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	text, err := yaml.Marshal(read[0].YAML())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), `"on": "off"`) {
		t.Errorf("words that old YAML takes for booleans are not quoted:\n%s", text)
	}
	nodes, faults := parseYAML(text)
	if len(faults) > 0 || len(nodes) != 1 {
		t.Fatalf("%v\n%s", faults, text)
	}
	var got, want any
	if err := json.Unmarshal(nodes[0].AppendJSON(nil), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(src), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v\n%s", got, want, text)
	}
}

// FuzzParse feeds arbitrary text: reading must end, not panic, name a line that the
// file has, and make JSON of what it accepts.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"kind: Flag\nspec: {variants: {on: true}}\n", `{"a":[1,-0.5,1e3,null,"x"]}`, "a: &a [*a]\n", "<<: &x {<<: *x}\n",
		"--- |\n...\n%YAML 1.2\n---\n- ? {}\n", `{"a":"\ud800","a":1e999}`, "\t", "&a a: *a", "a: 0x7f\nb: 1_0\n",
	} {
		f.Add("<stdin>", []byte(seed))
	}
	f.Fuzz(func(t *testing.T, name string, src []byte) {
		docs, faults := Parse(name, src)
		lines := 1 + len(regexp.MustCompile("\n|\r|\u0085|\u2028|\u2029").FindAll(src, -1)) // YAML has more line breaks than one
		for _, fault := range faults {
			if fault.Line < 1 || fault.Line > lines {
				t.Errorf("line %d of %d: %s", fault.Line, lines, fault.Msg)
			}
		}
		for _, doc := range docs {
			if text := doc.AppendJSON(nil); !json.Valid(text) {
				t.Errorf("not JSON: %s", text)
			}
		}
	})
}
