package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// servedLookups is how many definitions are looked up on the servers for the
// warnings of one command; names beyond it are not checked, and that is said.
const servedLookups = 200

// servedDefinitions finds definitions that the servers have.
type servedDefinitions struct {
	get func(place) (*manifest, error)
	// list returns names of a kind.
	list  func(place) ([]string, error)
	found map[place]*manifest
	named map[place][]string
	asked int
	// unchecked counts names that were not looked up; err says why the first was not.
	unchecked int
	err       error
}

// served returns a finder for the time of ctx. It is for warnings: what cannot be
// looked up is counted and fails nothing.
func (a *app) served(ctx context.Context) *servedDefinitions {
	return &servedDefinitions{
		get: func(at place) (*manifest, error) {
			r, err := a.fetch(ctx, at.Proto(at.namespace), nil)
			if status.Code(err) == codes.NotFound && !errors.Is(err, errInterrupted) {
				return nil, nil
			}
			if err != nil {
				return nil, a.rpcFailure("look up "+at.String(), err)
			}
			return &manifest{namespace: at.namespace, key: at.Key, spec: r.GetSpec()}, nil
		},
		list: func(kind place) ([]string, error) {
			return a.names(ctx, kind.namespace, kind.Kind, "", suggestPages)
		},
		found: map[place]*manifest{}, named: map[place][]string{},
	}
}

// find returns a definition, or nil where the servers have none; known is false
// where that could not be looked up.
func (s *servedDefinitions) find(at place) (def *manifest, known bool) {
	if def, known = s.found[at]; known {
		return def, true
	}
	if s.asked++; s.err == nil && s.asked > servedLookups {
		s.err = fmt.Errorf("only %d are looked up", servedLookups)
	}
	if s.err == nil {
		def, s.err = s.get(at)
	}
	if s.err != nil {
		s.unchecked++
		return nil, false
	}
	s.found[at] = def
	return def, true
}

// names lists what the servers have of a kind, as far as a hint looks.
func (s *servedDefinitions) names(kind place) []string {
	names, known := s.named[kind]
	if !known {
		names, _ = s.list(kind) // a hint less
		names = slices.DeleteFunc(names, func(name string) bool {
			def, known := s.found[place{kind.namespace, document.Key{Kind: kind.Kind, Name: name}}]
			return known && def == nil
		})
		s.named[kind] = names
	}
	return names
}

// checkApplied returns warnings about names that applied definitions use and
// that are neither in the files nor on the servers. Pruned ones are on no server.
func (a *app) checkApplied(ctx context.Context, manifests []*manifest, p *plan) []string {
	c := newCrossChecker(manifests)
	c.missing, c.served = "neither the files nor the servers have", a.served(ctx)
	for _, s := range p.steps {
		if d := s.op.GetDelete(); d != nil {
			c.served.found[place{namespaceOf(d.GetKey()), document.Key{Kind: kindOf(d.GetKey()), Name: d.GetKey().GetName()}}] = nil
		}
	}
	c.definitions(manifests)
	return c.warnings()
}

// checkLevel returns warnings about names that a mode uses up to a level, which
// the servers do not have.
func (a *app) checkLevel(ctx context.Context, mode *manifest, rank int) []string {
	c := newCrossChecker(nil)
	c.missing, c.served = "the servers have no", a.served(ctx)
	c.mode(mode, rank)
	return c.warnings()
}

// checkDependency returns a warning where no policy has the name of a dependency.
// It may be meant: a dependency without one has the built-in settings.
func (a *app) checkDependency(ctx context.Context, dependency string) []string {
	s := a.served(ctx)
	at := place{a.namespace(), document.Key{Kind: document.Policy, Name: dependency}}
	def, known := s.find(at)
	if !known {
		return []string{fmt.Sprintf("whether there is a policy %q was not checked: %v", dependency, s.err)}
	}
	if def != nil {
		return nil
	}
	text := fmt.Sprintf("no policy is named %q%s: this concerns nobody unless services call a dependency so", dependency, a.inNamespace())
	if hint := didYouMean(dependency, s.names(place{at.namespace, document.Key{Kind: document.Policy}})); hint != "" {
		text += "; " + hint
	}
	return []string{text}
}

// warnings returns what was found. Nothing of it fails a command that writes.
func (c *crossChecker) warnings() []string {
	const shown = 50
	sortProblems(c.problems)
	var out []string
	for _, p := range c.problems[:min(len(c.problems), shown)] {
		p.warning = false // the writer says so
		out = append(out, p.String())
	}
	if rest := len(c.problems) - shown; rest > 0 {
		out = append(out, "and "+plural(rest, "more warning"))
	}
	if n := c.served.unchecked; n > 0 {
		out = append(out, fmt.Sprintf("%s of flags and policies not checked: %v", plural(n, "name"), c.served.err))
	}
	return out
}

// addWarnings tells warnings and keeps them for the result.
func (a *app) addWarnings(v *resultView, warnings []string) {
	for _, text := range warnings {
		v.Warnings = append(v.Warnings, text)
		a.warn("%s", text)
	}
}
