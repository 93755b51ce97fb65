package cli

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// fleetView is what a server knows of a fleet, in JSON and YAML.
type fleetView struct {
	head
	ServerID     string           `json:"server_id"`
	Revision     uint64           `json:"revision"`
	Time         time.Time        `json:"time"`
	Members      uint32           `json:"members"`
	Instances    uint32           `json:"instances"`
	Hosts        uint32           `json:"hosts"`
	Dependencies []dependencyView `json:"dependencies"`
}

// dependencyView is what the fleet says of one dependency.
type dependencyView struct {
	Name    string      `json:"name"`
	Verdict verdictView `json:"verdict"`
	// WithoutTraffic is the verdict of an instance that has made no calls.
	WithoutTraffic verdictView  `json:"verdict_without_traffic"`
	Reports        []reportView `json:"reports"`
	ReportCount    uint32       `json:"report_count"`
}

// verdictView is a conclusion and its reasons.
type verdictView struct {
	Open        bool    `json:"open"`
	Mode        string  `json:"mode"`
	Reason      string  `json:"reason"`
	HostsOpen   uint32  `json:"hosts_open"`
	HostsNeeded uint32  `json:"hosts_needed"`
	ZonesOpen   uint32  `json:"zones_open"`
	ZonesNeeded uint32  `json:"zones_needed"`
	WeightOpen  float64 `json:"weight_open"`
	WeightWell  float64 `json:"weight_well"`
}

// reportView is what one instance says of one dependency.
type reportView struct {
	InstanceID   string  `json:"instance_id"`
	Service      string  `json:"service"`
	Host         string  `json:"host"`
	Zone         string  `json:"zone"`
	Mode         string  `json:"mode"`
	Opinion      string  `json:"opinion"`
	Reason       string  `json:"reason,omitempty"`
	Calls        uint64  `json:"calls"`
	Failures     uint64  `json:"failures"`
	SinceSeconds float64 `json:"since_seconds"`
	AgeSeconds   float64 `json:"age_seconds"`
	// DoubtsItself tells that the instance holds itself to be the sick one.
	DoubtsItself bool `json:"doubts_itself"`
	// Ignored is why the report does not count; empty if it does.
	Ignored string `json:"ignored,omitempty"`
}

// Opinions that the commands tell apart; a newer server may have others.
const (
	opinionWell    = "well"
	opinionOpen    = "open"
	opinionHearsay = "hearsay"
)

func fleetViewOf(f *holdfastv1.Fleet) fleetView {
	v := fleetView{
		head: newHead("Fleet"), ServerID: f.GetServerId(), Revision: f.GetRevision(), Time: f.GetTime().AsTime(),
		Members: f.GetMembers(), Instances: f.GetInstances(), Hosts: f.GetHosts(), Dependencies: []dependencyView{},
	}
	for _, d := range f.GetDependencies() {
		if len(d.GetReports()) == 0 && d.GetReportCount() == 0 {
			continue // was asked for by name, and nobody speaks of it
		}
		one := dependencyView{
			Name: d.GetName(), Verdict: verdictViewOf(d.GetVerdict()), WithoutTraffic: verdictViewOf(d.GetVerdictWithoutTraffic()),
			Reports: []reportView{}, ReportCount: max(d.GetReportCount(), uint32(len(d.GetReports()))), //nolint:gosec // a message holds fewer
		}
		for _, r := range d.GetReports() {
			one.Reports = append(one.Reports, reportView{
				InstanceID: r.GetInstanceId(), Service: r.GetService(), Host: r.GetHost(), Zone: r.GetZone(), Mode: r.GetMode(),
				Opinion: r.GetOpinion(), Reason: r.GetReason(), Calls: r.GetCalls(), Failures: r.GetFailures(),
				SinceSeconds: r.GetSince().AsDuration().Seconds(), AgeSeconds: r.GetAge().AsDuration().Seconds(),
				DoubtsItself: r.GetDoubtsItself(), Ignored: r.GetIgnored(),
			})
		}
		v.Dependencies = append(v.Dependencies, one)
	}
	return v
}

func verdictViewOf(v *holdfastv1.FleetVerdict) verdictView {
	return verdictView{
		Open: v.GetOpen(), Mode: v.GetMode(), Reason: v.GetReason(), HostsOpen: v.GetHostsOpen(), HostsNeeded: v.GetHostsNeeded(),
		ZonesOpen: v.GetZonesOpen(), ZonesNeeded: v.GetZonesNeeded(), WeightOpen: v.GetWeightOpen(), WeightWell: v.GetWeightWell(),
	}
}

// word is the verdict in two words.
func (v verdictView) word() string {
	switch {
	case v == verdictView{}: // of the dependencies that are left out
		return "-"
	case !v.Open:
		return "closed"
	case v.Mode == "enforce":
		return "OPEN"
	default:
		return "open (" + cmp.Or(v.Mode, "advise") + ")"
	}
}

// since is for how long the instance has been of its opinion.
func (r reportView) since() time.Duration {
	return time.Duration(r.SinceSeconds * float64(time.Second))
}

// age is how old the report is.
func (r reportView) age() time.Duration { return time.Duration(r.AgeSeconds * float64(time.Second)) }

// cell is a report in the matrix: the opinion and what it rests on.
func (r reportView) cell() string {
	text := r.Opinion
	if r.Calls > 0 {
		text += fmt.Sprintf(" %d/%d", r.Failures, r.Calls)
	}
	if r.Ignored != "" {
		text = "(" + text + ")"
	}
	return text
}

// tally counts opinions, in the order of how bad they are.
func (d dependencyView) tally() string {
	counts := map[string]int{}
	var order []string
	for _, r := range d.Reports {
		if counts[r.Opinion]++; counts[r.Opinion] == 1 {
			order = append(order, r.Opinion)
		}
	}
	slices.SortFunc(order, func(a, b string) int { return cmp.Or(-cmp.Compare(badness(a), badness(b)), strings.Compare(a, b)) })
	parts := make([]string, 0, len(order))
	for _, o := range order {
		parts = append(parts, fmt.Sprintf("%s %s", humanCount(counts[o]), o))
	}
	return strings.Join(parts, ", ")
}

// badness orders opinions; those of a newer server come first.
func badness(opinion string) int {
	order := []string{opinionWell, "recovering", "suspects", opinionHearsay, "probing", opinionOpen}
	if i := slices.Index(order, opinion); i >= 0 {
		return i
	}
	return len(order)
}

const (
	// matrixRows is how many rows the matrix has at most before its instances are put
	// together by service and zone; matrixColumns how many dependencies it shows.
	matrixRows    = 30
	matrixColumns = 8
)

// fleetText is the fleet for people: the verdicts, and who says what.
func (a *app) fleetText(v fleetView) ([]byte, error) {
	var buf bytes.Buffer
	if err := a.verdictTable(&buf, v.Dependencies); err != nil {
		return nil, err
	}
	shown := v.Dependencies[:min(len(v.Dependencies), matrixColumns)]
	m := newMatrix(shown, a.wide)
	if len(m.rows) == 0 {
		return buf.Bytes(), nil
	}
	writef(&buf, "\n")
	if err := a.matrixTable(&buf, shown, m); err != nil {
		return nil, err
	}
	if m.grouped {
		writef(&buf, "\n%s\n", a.out.dim("many instances, put together by service and zone; -o wide shows each, `holdfast fleet explain` all of one dependency"))
	}
	if n := len(v.Dependencies) - len(shown); n > 0 {
		writef(&buf, "\n%s\n", a.out.dim(fmt.Sprintf("and %s more that would not fit; name one: holdfast fleet DEPENDENCY", humanCount(n))))
	}
	return buf.Bytes(), nil
}

// verdictTable writes one line for each dependency.
func (a *app) verdictTable(buf *bytes.Buffer, list []dependencyView) error {
	t := table{}
	t.row("DEPENDENCY", "VERDICT", "HOSTS", "ZONES", "SAID BY", "WHY")
	for _, d := range list {
		v := d.Verdict
		t.row(d.Name, v.word(), fmt.Sprintf("%d of %d", v.HostsOpen, v.HostsNeeded), fmt.Sprintf("%d of %d", v.ZonesOpen, v.ZonesNeeded), dash(d.tally()), v.Reason)
	}
	t.paint = func(row, column int, text string) string {
		switch {
		case row == 0:
			return a.out.bold(text)
		case column != 1:
			return text
		case list[row-1].Verdict.Open:
			return a.out.red(text)
		default:
			return a.out.green(text)
		}
	}
	return t.write(buf)
}

// matrix is dependency × instance: what each says of each.
type matrix struct {
	grouped bool
	rows    []matrixRow
}

type matrixRow struct {
	labels []string // instance, service, host and zone; or service and zone
	cells  []string // one for each dependency
	bad    []bool   // of the cells
}

// newMatrix has a row for each instance, or for each service and zone where there
// are many instances.
func newMatrix(list []dependencyView, each bool) matrix {
	instances := map[string]bool{}
	for _, d := range list {
		for _, r := range d.Reports {
			instances[r.InstanceID] = true
		}
	}
	m := matrix{grouped: len(instances) > matrixRows && !each}
	groups := map[string][][]reportView{} // by row, then by dependency
	labels := map[string][]string{}
	for i, d := range list {
		for _, r := range d.Reports {
			label := []string{r.InstanceID, r.Service, r.Host, r.Zone}
			if m.grouped {
				label = []string{r.Service, r.Zone}
			}
			key := strings.Join(append([]string{r.Service}, label...), "\x00")
			if groups[key] == nil {
				groups[key], labels[key] = make([][]reportView, len(list)), label
			}
			groups[key][i] = append(groups[key][i], r)
		}
	}
	keys := make([]string, 0, len(groups))
	for key := range groups {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		row := matrixRow{labels: labels[key]}
		for _, reports := range groups[key] {
			text, bad := cellOf(reports, m.grouped)
			row.cells, row.bad = append(row.cells, text), append(row.bad, bad)
		}
		m.rows = append(m.rows, row)
	}
	return m
}

// cellOf is what some instances say of one dependency, and whether any of them finds
// it broken.
func cellOf(reports []reportView, grouped bool) (string, bool) {
	bad := slices.ContainsFunc(reports, func(r reportView) bool { return r.Opinion != opinionWell && r.Ignored == "" })
	switch {
	case len(reports) == 0:
		return "-", false
	case grouped:
		return dependencyView{Reports: reports}.tally(), bad
	default:
		return reports[0].cell(), bad
	}
}

func (a *app) matrixTable(buf *bytes.Buffer, list []dependencyView, m matrix) error {
	t := table{}
	titles := []string{"INSTANCE", "SERVICE", "HOST", "ZONE"}
	if m.grouped {
		titles = []string{"SERVICE", "ZONE"}
	}
	first := len(titles)
	for _, d := range list {
		titles = append(titles, d.Name)
	}
	t.row(titles...)
	for _, r := range m.rows {
		cells := make([]string, 0, len(titles))
		for _, l := range r.labels {
			cells = append(cells, dash(l))
		}
		t.row(append(cells, r.cells...)...)
	}
	t.paint = func(row, column int, text string) string {
		switch {
		case row == 0:
			return a.out.bold(text)
		case column >= first && m.rows[row-1].bad[column-first]:
			return a.out.red(text)
		default:
			return text
		}
	}
	return t.write(buf)
}

// explainText says why the verdict on a dependency is what it is.
func (a *app) explainText(d dependencyView) ([]byte, error) {
	var buf bytes.Buffer
	told := table{paint: func(_, column int, text string) string {
		if column == 0 {
			return a.out.bold(text)
		}
		return text
	}}
	told.row("Dependency", d.Name)
	told.row("Who suspects it", d.Verdict.sentence("obeys"))
	told.row("Who makes no calls", d.WithoutTraffic.sentence("obeys"))
	told.row("Hosts", votes(d.Verdict.HostsOpen, d.Verdict.HostsNeeded))
	told.row("Zones", votes(d.Verdict.ZonesOpen, d.Verdict.ZonesNeeded))
	told.row("Weight", fmt.Sprintf("%.1f find it broken, %.1f find it well", d.Verdict.WeightOpen, d.Verdict.WeightWell))
	told.row("Said by", dash(d.tally()))
	if err := told.write(&buf); err != nil {
		return nil, err
	}
	if len(d.Reports) == 0 {
		return buf.Bytes(), nil
	}
	writef(&buf, "\n")
	t := table{}
	t.row("INSTANCE", "SERVICE", "HOST", "ZONE", "SAYS", "WHY", "FAILED", "FOR", "AGE", "COUNTS")
	for _, r := range d.Reports {
		counts := "yes"
		if r.Ignored != "" {
			counts = "no: " + r.Ignored
		}
		t.row(r.InstanceID, dash(r.Service), dash(r.Host), dash(r.Zone), r.Opinion, dash(r.Reason),
			fmt.Sprintf("%s of %s", humanCount(int(r.Failures)), humanCount(int(r.Calls))), //nolint:gosec // calls of some seconds
			human(r.since()), human(r.age()), counts)
	}
	t.paint = func(row, column int, text string) string {
		switch {
		case row == 0:
			return a.out.bold(text)
		case d.Reports[row-1].Ignored != "":
			return a.out.dim(text)
		case column == 4 && d.Reports[row-1].Opinion != opinionWell:
			return a.out.red(text)
		default:
			return text
		}
	}
	if err := t.write(&buf); err != nil {
		return nil, err
	}
	if rest := int(d.ReportCount) - len(d.Reports); rest > 0 {
		writef(&buf, "and %s that the server did not name\n", plural(rest, "more report"))
	}
	return buf.Bytes(), nil
}

// sentence says what an instance concludes and whether it obeys that.
func (v verdictView) sentence(obeys string) string {
	switch {
	case v.Mode == "off":
		return "does not ask the fleet (off)"
	case !v.Open:
		return "goes on calling it: " + v.Reason
	case v.Mode == "enforce":
		return obeys + ": finds it broken, " + v.Reason
	default:
		return "only shows it (" + cmp.Or(v.Mode, "advise") + "): finds it broken, " + v.Reason
	}
}

// votes says how many of those that are needed there are.
func votes(have, needed uint32) string {
	if have >= needed && needed > 0 {
		return fmt.Sprintf("%d find it broken, %d %s needed", have, needed, verb(int(needed), "is", "are"))
	}
	return fmt.Sprintf("%d find it broken; %d %s needed, so %d %s missing", have, needed, verb(int(needed), "is", "are"),
		needed-min(have, needed), verb(int(needed-min(have, needed)), "is", "are"))
}

// fleetChanges says what is different in a later picture, a line for each.
func fleetChanges(was, is fleetView) []string {
	var out []string
	before := map[string]dependencyView{}
	for _, d := range was.Dependencies {
		before[d.Name] = d
	}
	for _, d := range is.Dependencies {
		old := before[d.Name]
		delete(before, d.Name)
		if old.Verdict.Open != d.Verdict.Open || old.Verdict.Mode != d.Verdict.Mode && d.Verdict.Open {
			out = append(out, fmt.Sprintf("%s %s: %s", d.Name, d.Verdict.word(), d.Verdict.Reason))
		}
		out = append(out, reportChanges(old, d)...)
	}
	for _, d := range was.Dependencies {
		if gone, ok := before[d.Name]; ok {
			out = append(out, fmt.Sprintf("%s is well: nobody says otherwise", gone.Name))
		}
	}
	return out
}

func reportChanges(was, is dependencyView) []string {
	var out []string
	before := map[string]reportView{}
	for _, r := range was.Reports {
		before[r.InstanceID] = r
	}
	for _, r := range is.Reports {
		old, known := before[r.InstanceID]
		delete(before, r.InstanceID)
		if !known || old.Opinion != r.Opinion || old.Ignored != r.Ignored {
			out = append(out, fmt.Sprintf("%s %s (%s, %s): %s", is.Name, r.InstanceID, dash(r.Host), dash(r.Zone), r.cell()))
		}
	}
	for _, r := range was.Reports {
		if _, gone := before[r.InstanceID]; gone && len(is.Reports) > 0 {
			out = append(out, fmt.Sprintf("%s %s (%s, %s): says nothing any more", is.Name, r.InstanceID, dash(r.Host), dash(r.Zone)))
		}
	}
	return out
}
