package yamlfile

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// Parse reads the values of a YAML or JSON file, with everything that is wrong with
// it. A name that does not tell which it is leaves it to the first character.
func Parse(name string, src []byte) ([]*Node, []*Fault) {
	src = bytes.TrimPrefix(src, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(src) {
		return nil, []*Fault{{lineOfInvalid(src), "not UTF-8 text"}}
	}
	ext := strings.ToLower(filepath.Ext(name))
	first := bytes.TrimLeft(src, " \t\r\n")
	isJSON := ext == ".json"
	maybeJSON := ext != ".yaml" && ext != ".yml" && len(first) > 0 && (first[0] == '{' || first[0] == '[')
	if !isJSON && !maybeJSON {
		return parseYAML(src)
	}
	docs, err := parseJSON(src)
	if err == nil {
		return docs, nil
	}
	if !isJSON {
		if docs, faults := parseYAML(src); len(faults) == 0 {
			return docs, nil
		}
	}
	var fault *Fault
	if !errors.As(err, &fault) {
		fault = &Fault{1, err.Error()}
	}
	return docs, []*Fault{fault}
}

// lineOfInvalid returns the line of the first byte that is not UTF-8.
func lineOfInvalid(src []byte) int {
	valid := 0
	for valid < len(src) {
		r, size := utf8.DecodeRune(src[valid:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		valid += size
	}
	return 1 + bytes.Count(src[:valid], []byte{'\n'})
}
