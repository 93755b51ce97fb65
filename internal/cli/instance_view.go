package cli

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// instanceView is an instance in JSON and YAML.
type instanceView struct {
	ID              string            `json:"id"`
	Service         string            `json:"service"`
	Namespace       string            `json:"namespace"`
	Labels          map[string]string `json:"labels"`
	Incarnation     uint64            `json:"incarnation"`
	SDK             string            `json:"sdk"`
	Host            string            `json:"host"`
	Connected       bool              `json:"connected"`
	ServerID        string            `json:"server_id"`
	Address         string            `json:"address"`
	AuthenticatedAs string            `json:"authenticated_as,omitempty"`
	ConnectedSince  *time.Time        `json:"connected_since,omitempty"`
	LastSeen        *time.Time        `json:"last_seen,omitempty"`
	Epoch           uint64            `json:"epoch"`
	Revision        uint64            `json:"revision"`
	// Obeys tells whether it obeys the revision that changed its namespace last, and
	// Behind how many revisions are missing. Both are nil where that was not asked.
	Obeys        *bool       `json:"obeys,omitempty"`
	Behind       *uint64     `json:"behind,omitempty"`
	Source       string      `json:"source"`
	Problems     []faultView `json:"problems"`
	ProblemCount int         `json:"problem_count"`
	OverriddenBy string      `json:"overridden_by,omitempty"`
}

// faultView is a resource that an instance cannot obey.
type faultView struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Message string `json:"message"`
}

// String names the resource and the problem.
func (p faultView) String() string {
	return fmt.Sprintf("%s/%s: %s", strings.ToLower(p.Kind), p.Name, p.Message)
}

// newest is what an up-to-date instance of a namespace obeys: in which history, and
// the revision that changed the namespace last.
type newest struct {
	epoch    *holdfastv1.Epoch
	revision uint64
}

// instanceViews returns instances for output. Without newest, how far they are
// behind is left open.
func instanceViews(list []*holdfastv1.Instance, to *newest) []instanceView {
	out := make([]instanceView, 0, len(list))
	for _, i := range list {
		out = append(out, instanceViewOf(i, to))
	}
	return out
}

// sourceName is the word for where a view comes from.
func sourceName(s holdfastv1.Source) string {
	if s == holdfastv1.Source_SOURCE_UNSPECIFIED {
		return "unknown"
	}
	return strings.ToLower(strings.TrimPrefix(s.String(), "SOURCE_"))
}

func instanceViewOf(i *holdfastv1.Instance, to *newest) instanceView {
	id := i.GetIdentity()
	v := instanceView{
		ID: id.GetId(), Service: id.GetService(), Namespace: i.GetNamespace(), Labels: id.GetLabels(), Incarnation: id.GetIncarnation(),
		SDK: id.GetSdk(), Host: id.GetHost(), Connected: i.GetConnected(), ServerID: i.GetServerId(), Address: i.GetAddress(),
		AuthenticatedAs: i.GetAuthenticatedAs(), Epoch: i.GetEpoch().GetCounter(), Revision: i.GetRevision(),
		Source:   sourceName(i.GetSource()),
		Problems: []faultView{}, ProblemCount: max(int(i.GetProblemCount()), len(i.GetProblems())), OverriddenBy: i.GetOverriddenBy(),
	}
	if v.Labels == nil {
		v.Labels = map[string]string{}
	}
	if t := i.GetConnectedSince(); t != nil {
		since := t.AsTime()
		v.ConnectedSince = &since
	}
	if t := i.GetLastSeen(); t != nil {
		seen := t.AsTime()
		v.LastSeen = &seen
	}
	for _, p := range i.GetProblems() {
		v.Problems = append(v.Problems, faultView{kindTitle(kindOf(p.GetKey())), p.GetKey().GetName(), p.GetMessage()})
	}
	if to != nil {
		var behind uint64
		if v.Revision < to.revision {
			behind = to.revision - v.Revision
		}
		// What was obeyed in another history says nothing about this one.
		same := i.GetRevision() > 0 && i.GetEpoch().GetCounter() >= to.epoch.GetCounter() &&
			bytes.Equal(i.GetEpoch().GetLineage(), to.epoch.GetLineage())
		obeys := to.revision == 0 || behind == 0 && same
		v.Obeys, v.Behind = &obeys, &behind
	}
	return v
}

// String names the instance, what it is of and where it is connected.
func (v instanceView) String() string {
	return fmt.Sprintf("%s (%s, server %s)", v.ID, cmp.Or(v.Service, "no service"), cmp.Or(v.ServerID, "unknown"))
}

// impairments says what the instance does not do although it obeys the revision.
func (v instanceView) impairments() []string {
	var out []string
	if v.OverriddenBy != "" {
		out = append(out, "is overridden by "+v.OverriddenBy)
	}
	if len(v.Problems) > 0 {
		text := "cannot obey " + v.Problems[0].String()
		if rest := v.ProblemCount - 1; rest > 0 {
			text += fmt.Sprintf(" (and %s)", plural(rest, "more problem"))
		}
		out = append(out, text)
	} else if v.ProblemCount > 0 {
		out = append(out, "has "+plural(v.ProblemCount, "problem"))
	}
	return out
}

// state says in a few words how the instance is.
func (v instanceView) state() string {
	var parts []string
	switch {
	case v.Obeys != nil && *v.Obeys:
		parts = append(parts, "obeys")
	case v.Revision == 0:
		parts = append(parts, "has told nothing yet")
	case v.Behind != nil && *v.Behind == 0:
		parts = append(parts, "obeys a state before the restore")
	default:
		parts = append(parts, "behind")
	}
	if v.OverriddenBy != "" {
		parts = append(parts, "overridden by "+v.OverriddenBy)
	}
	if v.ProblemCount > 0 {
		parts = append(parts, plural(v.ProblemCount, "problem"))
	}
	return strings.Join(parts, ", ")
}

// behind is how many revisions the instance lacks.
func (v instanceView) behind() string {
	switch {
	case v.Obeys == nil || v.Revision == 0 && !*v.Obeys:
		return "?"
	case *v.Obeys:
		return "-"
	default:
		return cmp.Or(strings.TrimPrefix(fmt.Sprint(*v.Behind), "0"), "?")
	}
}

// labelText writes labels as a selector would.
func labelText(labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, ",")
}

// seen is how long the instance is connected, or when it was seen last.
func (a *app) seen(v instanceView) string {
	switch {
	case v.Connected && v.ConnectedSince != nil:
		return "for " + human(a.stateTime().Sub(*v.ConnectedSince))
	case v.Connected:
		return "yes"
	case v.LastSeen != nil:
		return "no, " + human(a.stateTime().Sub(*v.LastSeen)) + " ago"
	default:
		return "no"
	}
}

// instanceTable writes one line for each instance; wide tells more of each.
func (a *app) instanceTable(list []instanceView) error {
	const zone = "zone"
	t := table{}
	if a.wide {
		t.row("ID", "SERVICE", "LABELS", "SERVER", "CONNECTED", "REVISION", "BEHIND", "STATE", "ADDRESS", "HOST", "SDK", "CERTIFICATE", "STARTED FROM")
	} else {
		t.row("ID", "SERVICE", "ZONE", "SERVER", "CONNECTED", "REVISION", "BEHIND", "STATE")
	}
	for _, v := range list {
		labels := v.Labels[zone]
		if a.wide {
			labels = labelText(v.Labels)
		}
		cells := []string{v.ID, dash(v.Service), dash(labels), dash(v.ServerID), a.seen(v), fmt.Sprint(v.Revision), v.behind(), v.state()}
		if a.wide {
			cells = append(cells, dash(v.Address), dash(v.Host), dash(v.SDK), dash(v.AuthenticatedAs), v.Source)
		}
		t.row(cells...)
	}
	const state = 7
	t.paint = func(row, column int, text string) string {
		switch {
		case row == 0:
			return a.out.bold(text)
		case column != state:
			return text
		case list[row-1].Obeys != nil && !*list[row-1].Obeys:
			return a.out.red(text)
		case len(list[row-1].impairments()) > 0:
			return a.out.yellow(text)
		}
		return text
	}
	return t.write(a.io.Out)
}

// tellInstance writes everything about one instance for people.
func (a *app) tellInstance(v instanceView, to *newest) error {
	var buf bytes.Buffer
	t := table{paint: func(_, column int, text string) string {
		if column == 0 {
			return a.out.bold(text)
		}
		return text
	}}
	t.row("Instance", v.ID)
	t.row("Service", dash(v.Service))
	t.row("Namespace", v.Namespace)
	for i, label := range strings.Split(dash(labelText(v.Labels)), ",") {
		title := "Labels"
		if i > 0 {
			title = ""
		}
		t.row(title, label)
	}
	where := fmt.Sprintf("to server %s from %s", dash(v.ServerID), dash(v.Address))
	t.row("Connected", a.seen(v)+", "+where)
	obeys := fmt.Sprintf("revision %d", v.Revision)
	switch {
	case v.Revision == 0:
		obeys = "has told nothing yet"
	case v.Obeys != nil && *v.Obeys:
		obeys += ", the newest"
	case v.Epoch != to.epoch.GetCounter():
		obeys += fmt.Sprintf(" of epoch %d; the newest is revision %d of epoch %d", v.Epoch, to.revision, to.epoch.GetCounter())
	default:
		obeys += fmt.Sprintf("; the newest is %d", to.revision)
	}
	t.row("Obeys", obeys)
	t.row("Started from", v.Source)
	t.row("Process", fmt.Sprintf("host %s, SDK %s, incarnation %d", dash(v.Host), dash(v.SDK), v.Incarnation))
	t.row("Certificate", dash(v.AuthenticatedAs))
	t.row("Overridden by", dash(v.OverriddenBy))
	t.row("Problems", dash(strings.TrimPrefix(fmt.Sprint(v.ProblemCount), "0")))
	if err := t.write(&buf); err != nil {
		return err
	}
	for _, p := range v.Problems {
		writef(&buf, "  %s\n", printable(p.String()))
	}
	if rest := v.ProblemCount - len(v.Problems); rest > 0 {
		writef(&buf, "  and %s that the instance did not name\n", humanCount(rest))
	}
	return a.flush(buf.Bytes())
}
