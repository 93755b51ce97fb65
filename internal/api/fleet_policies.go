package api

import (
	"sync"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/internal/state"
)

// policyViews resolves policies as an instance without labels obeys them. It keeps the
// newest view of each namespace that is looked at.
type policyViews struct {
	mu    sync.Mutex
	views map[string]policyView
}

// policyView is the policies of a namespace at a root.
type policyView struct {
	root document.Root
	view *flags.View
}

// of returns the settings of the dependencies of a namespace.
func (p *policyViews) of(view *state.View, namespace string) func(dependency string) policy.Policy {
	content := view.Namespace(namespace)
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.views[namespace]
	if root := content.Root(); known.view == nil || known.root != root {
		known = policyView{root, flags.NewView(flags.Instance{}).Update(policiesOf(view, content))}
		if len(p.views) >= MaxPolicyViews {
			clear(p.views) // they are made anew when they are needed
		}
		p.views[namespace] = known
	}
	return func(dependency string) policy.Policy {
		resolved, _ := known.view.Policy(dependency)
		return resolved
	}
}

// policiesOf returns what policies are resolved from.
func policiesOf(view *state.View, content *state.Namespace) document.Delta {
	d := document.Delta{Namespace: content.Name(), To: view.Revision(), Root: content.Root()}
	for _, kind := range []document.Kind{document.Mode, document.Policy, document.Override} {
		content.Ascend(kind, "", "", func(r *document.Resource) bool {
			d.Puts = append(d.Puts, r)
			return true
		})
	}
	return d
}
