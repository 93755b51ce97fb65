// Package policyfile reads settings of dependencies from YAML or JSON files, for
// client.Config.Policies:
//
//	policies, err := policyfile.Load("policies.yaml")
//	cp, err := client.Open(ctx, client.Config{Service: "checkout", Policies: policies})
//
// What is wrong with a file is told all at once, each fault with file, line and key.
package policyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/internal/yamlfile"
)

// maxFileBytes is how large a file may be, maxBytes the JSON of all that is in it,
// which aliases can make larger.
const (
	maxFileBytes = 4 << 20
	maxBytes     = 8 << 20
)

// Load reads a file of policies by their dependencies:
//
//	policies:
//	  payments:
//	    circuit_breaker: {failure_threshold: 5}
//
// or documents as `holdfast apply` takes them, with kind: Policy, name and spec, whose
// namespaces and labels do not count. A file may have several documents of both.
func Load(path string) (map[string]string, error) {
	documents, err := read(path)
	if err != nil {
		return nil, err
	}
	l := loader{file: path, policies: map[string]string{}, lines: map[string]int{}, left: maxBytes}
	for _, n := range documents {
		l.document(n)
	}
	if len(l.faults) == 0 && len(l.policies) == 0 {
		l.fail(1, `there is no policy; name dependencies below "policies"`)
	}
	if len(l.faults) > 0 {
		return nil, errors.Join(l.faults...)
	}
	return l.policies, nil
}

// LoadOne reads a file that is the policy of one dependency:
//
//	circuit_breaker: {failure_threshold: 5, timeout: 30s, success_threshold: 2}
//	retry_policy: {max_attempts: 3}
func LoadOne(path string) (string, error) {
	documents, err := read(path)
	if err != nil {
		return "", err
	}
	l := loader{file: path, left: maxBytes}
	if len(documents) != 1 {
		return "", fmt.Errorf("%s:1: has %d documents, but must have one; read several policies with Load", path, len(documents))
	}
	n := documents[0]
	if n.Get("policies") != nil || n.Get("kind") != nil {
		l.fail(n.Line, "names dependencies; read it with Load")
	}
	text := ""
	if len(l.faults) == 0 {
		text = l.check("", n.Line, n)
	}
	if len(l.faults) > 0 {
		return "", errors.Join(l.faults...)
	}
	return text, nil
}

// read returns the documents of a file.
func read(path string) ([]*yamlfile.Node, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	if len(text) > maxFileBytes {
		return nil, fmt.Errorf("%s:%d: is larger than %d bytes", path, 1+bytes.Count(text, []byte{'\n'}), maxFileBytes)
	}
	documents, faults := yamlfile.Parse(path, text)
	if len(faults) > 0 {
		l := loader{file: path}
		for _, fault := range faults {
			l.fail(fault.Line, "%s", fault.Msg)
		}
		return nil, errors.Join(l.faults...)
	}
	return slices.DeleteFunc(documents, func(n *yamlfile.Node) bool { return n.Kind == yamlfile.Null }), nil
}

// loader collects policies, and what is wrong with them.
type loader struct {
	file     string
	policies map[string]string
	lines    map[string]int
	left     int // bytes
	faults   []error
}

func (l *loader) fail(line int, format string, args ...any) {
	l.faults = append(l.faults, fmt.Errorf("%s:%d: %s", l.file, line, fmt.Sprintf(format, args...)))
}

// document reads one document of a file with names.
func (l *loader) document(n *yamlfile.Node) {
	if n.Kind != yamlfile.Map {
		l.fail(n.Line, `a document is a mapping with the key "policies", not %s`, n.Kind)
		return
	}
	if n.Get("kind") != nil {
		l.declared(n)
		return
	}
	for _, f := range n.Fields {
		if f.Key != "policies" {
			l.fail(f.Line, `%q is no key of a file of policies; dependencies are named below "policies", and a file that is one policy is for LoadOne`, f.Key)
			continue
		}
		if f.Value.Kind != yamlfile.Map {
			l.fail(f.Line, "policies: is %s, but must be a mapping of dependencies", f.Value.Kind)
			continue
		}
		for _, p := range f.Value.Fields {
			l.add(p.Key, p.Line, p.Value)
		}
	}
}

// declared reads a document with kind, name and spec, or a List of them.
func (l *loader) declared(n *yamlfile.Node) {
	kind, name, spec := n.Get("kind"), n.Get("name"), n.Get("spec")
	switch {
	case kind.Kind == yamlfile.String && kind.Text == "List":
		items := n.Get("items")
		if items == nil || items.Kind != yamlfile.List {
			l.fail(n.Line, "items: a List needs items, a list of documents")
			return
		}
		for _, item := range items.Items {
			l.document(item)
		}
	case kind.Kind != yamlfile.String || !strings.EqualFold(kind.Text, "policy"):
		l.fail(kind.Line, "kind: %q cannot be given in code, only Policy can", kind.Text)
	case name == nil || name.Kind != yamlfile.String:
		l.fail(n.Line, "name: is missing; it is the dependency that the policy is for")
	case spec == nil:
		l.fail(n.Line, "spec: is missing; it holds the policy")
	default:
		l.add(name.Text, spec.Line, spec)
	}
}

// add keeps the policy of a dependency.
func (l *loader) add(name string, line int, n *yamlfile.Node) {
	if err := document.CheckName(name); err != nil {
		l.fail(line, "%q: %v", name, err)
		return
	}
	if first, twice := l.lines[name]; twice {
		l.fail(line, "%s: there are two policies of this name, the first one in line %d", name, first)
		return
	}
	l.lines[name] = line
	l.policies[name] = l.check(name+": ", line, n)
}

// check returns a policy as JSON and notes what is wrong with it.
func (l *loader) check(prefix string, line int, n *yamlfile.Node) string {
	if l.left -= size(n, l.left); l.left < 0 {
		l.fail(line, "%sthe policies of this file take more than %d bytes as JSON", prefix, maxBytes)
		return ""
	}
	text := n.AppendJSON(nil)
	_, violations := policy.Parse(text)
	for _, v := range violations {
		l.fail(n.Locate(v.Path).Line, "%s%s", prefix, v)
	}
	return string(text)
}

// size returns about how many bytes a value takes as JSON; it stops counting beyond
// a limit.
func size(n *yamlfile.Node, limit int) int {
	total := len(n.Text) + 3
	for _, item := range n.Items {
		if total > limit {
			break
		}
		total += size(item, limit-total)
	}
	for i := range n.Fields {
		if total > limit {
			break
		}
		total += len(n.Fields[i].Key) + 4 + size(n.Fields[i].Value, limit-total)
	}
	return total
}
