package node

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// file reads the YAML file: one mapping of keys to scalars, or to lists of them
// where a setting is a list.
func (l *layers) file(path string) {
	data, err := readFile(path)
	if err != nil {
		l.problem("file %s: %v", path, err)
		return
	}
	var document yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&document); err != nil {
		if !errors.Is(err, io.EOF) {
			l.problem("file %s: %v", path, err)
		}
		return
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		l.problem("file %s: has more than one document", path)
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		l.problem("file %s: must be a mapping of keys to values", path)
		return
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		origin := fmt.Sprintf("file %s:%d", path, key.Line)
		switch {
		case key.Value == "config":
			l.problem("%s: config names this file and cannot be set in it", origin)
		case l.flags.Lookup(key.Value) == nil:
			l.unknown("key", fmt.Sprintf("%s (%s)", key.Value, origin[len("file "):]), nil)
			l.suggestKey(key.Value)
		case seen[key.Value]:
			l.problem("%s: %s is given twice", origin, key.Value)
		default:
			seen[key.Value] = true
			l.fileValue(key.Value, value, origin)
		}
	}
}

// suggestKey adds a suggestion to the last problem.
func (l *layers) suggestKey(key string) {
	if near := nearest(key, l.names("%s")); near != "" {
		l.problems[len(l.problems)-1] += "; did you mean " + near + "?"
	}
}

func (l *layers) fileValue(key string, value *yaml.Node, origin string) {
	list := l.flags.Lookup(key).Value.Type() == "stringSlice"
	switch {
	case value.Kind == yaml.AliasNode && value.Alias != nil:
		l.fileValue(key, value.Alias, origin)
	case value.Kind == yaml.ScalarNode:
		l.set(key, scalar(value), origin)
	case value.Kind == yaml.SequenceNode && list:
		var items []string
		for _, item := range value.Content {
			if item.Kind != yaml.ScalarNode {
				l.problem("%s: %s: must be a list of words", origin, key)
				return
			}
			items = append(items, item.Value)
		}
		var line strings.Builder
		w := csv.NewWriter(&line)
		_ = w.Write(items) // a strings.Builder takes everything
		w.Flush()
		l.set(key, strings.TrimSuffix(line.String(), "\n"), origin)
	default:
		l.problem("%s: %s: must be a single value", origin, key)
	}
}

// scalar reads YAML's other words for booleans.
func scalar(value *yaml.Node) string {
	if value.Tag != "!!str" || value.Style == 0 {
		switch strings.ToLower(value.Value) {
		case "on", "yes":
			return "true"
		case "off", "no":
			return "false"
		case "null", "~":
			return ""
		}
	}
	return value.Value
}
