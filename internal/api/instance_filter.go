package api

import (
	"fmt"
	"math"

	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/registry"
	"github.com/holdfast-dev/holdfast/internal/state"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// instanceFilter is a checked InstanceFilter.
type instanceFilter struct {
	namespace string
	selector  flags.Selector
	percent   float64
	target    string
}

// instances checks which instances are asked for.
func (v *violations) instances(field string, p *holdfastv1.InstanceFilter) instanceFilter {
	f := instanceFilter{namespace: v.namespace(field+".namespace", p.GetNamespace()), percent: 100, target: p.GetSalt()}
	selector, err := flags.ParseSelector(p.GetSelector())
	if err != nil {
		v.addf(field+".selector", "%v", err)
	}
	f.selector = selector
	v.text(field+".salt", f.target, flags.MaxSelector)
	if p == nil || p.Percent == nil {
		return f
	}
	switch f.percent = p.GetPercent(); {
	case math.IsNaN(f.percent) || f.percent < 0 || f.percent > 100:
		v.addf(field+".percent", "is %g; it must be between 0 and 100", f.percent)
	case f.target == "" && f.percent < 100:
		v.addf(field+".salt", "is not set; a percentage is drawn by it")
	}
	return f
}

// matches tells whether an instance is one of those.
func (f *instanceFilter) matches(i *registry.Instance) bool {
	label := func(key string) (string, bool) {
		if key == serviceLabel && i.Identity.GetService() != "" {
			return i.Identity.GetService(), true
		}
		value, ok := i.Identity.GetLabels()[key]
		return value, ok
	}
	id := flags.Instance{ID: i.Identity.GetId()}
	return f.selector.Matches(label) && id.Within(f.percent, f.target)
}

// key identifies the filter in page tokens.
func (f *instanceFilter) key() string {
	return fmt.Sprintf("%q %q %v %q", f.namespace, f.selector, f.percent, f.target)
}

// demand returns what an instance has to obey for a revision to have its effect on
// it: a revision that did not change its namespace asks for nothing new.
func demand(view *state.View, namespace string, revision uint64) registry.Demand {
	if view.Revision() >= revision {
		revision = min(revision, view.Namespace(namespace).ModRevision())
	}
	return registry.Demand{Epoch: view.Epoch().Proto(), Revision: revision}
}
