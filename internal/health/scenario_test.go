package health

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/policy"
)

var update = flag.Bool("update", false, "write what is concluded into testdata/*.txt")

// outcome marks the lines of a transcript that the rules write.
const outcome = "    | "

// TestScenarios replays the stories of testdata/*.txt. Each line says what happens, at
// a time since the beginning; indented lines behind it are what the rules conclude
// from then on. With -update they are written, to be read by whoever changed the
// rules.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			w := &world{t: t, fleet: policy.Default().Fleet, idle: policy.Default().FleetWithoutTraffic}
			for line := range strings.Lines(string(data)) {
				if line = strings.TrimRight(line, "\n"); !strings.HasPrefix(line, outcome[:5]) {
					w.line(line)
				}
			}
			w.flush()
			if bytes.Equal(w.out.Bytes(), data) {
				return
			}
			if *update {
				if err := os.WriteFile(file, w.out.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			got, want := strings.Split(w.out.String(), "\n"), strings.Split(string(data), "\n")
			for i := range min(len(got), len(want)) {
				if got[i] != want[i] {
					t.Fatalf("line %d:\n%s\nwant\n%s\n(go test ./internal/health -run TestScenarios -update writes it)", i+1, got[i], want[i])
				}
			}
			t.Fatalf("%d lines, want %d", len(got), len(want))
		})
	}
}

// world is a fleet that calls one dependency. What somebody says is heard at once by
// all whom it reaches; time goes on in steps of 100 ms.
type world struct {
	t        *testing.T
	fleet    policy.Fleet
	idle     policy.FleetWithoutTraffic
	zones    int
	deps     int
	people   []*person
	watch    map[string]bool // whose conclusions are written down; all if empty
	post     []letter        // under way until everybody has judged
	comments []string
	cut      map[[2]*person]bool
	down     map[*person]bool
	now      int64
	out      bytes.Buffer
}

// letter is a record under way.
type letter struct {
	to *person
	Held
}

// line does what a line says, and writes it down with what follows.
func (w *world) line(line string) {
	if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "fleet:") && !strings.HasPrefix(line, "policy:") && !strings.HasPrefix(line, "watch:") && line != "" {
		at, what, _ := strings.Cut(line, " ")
		d, err := time.ParseDuration(at)
		if err != nil {
			w.t.Fatalf("%s: %v", line, err)
		}
		for w.now+int64(tick) <= int64(d) {
			w.now += int64(tick)
			w.turn()
		}
		w.flush()
		fmt.Fprintln(&w.out, line)
		w.event(strings.TrimSpace(what))
		w.conclude()
		return
	}
	w.comments = append(w.comments, line)
	if rest, ok := strings.CutPrefix(line, "fleet:"); ok {
		w.found(rest)
	}
	if rest, ok := strings.CutPrefix(line, "policy:"); ok {
		w.policy(rest)
	}
	if rest, ok := strings.CutPrefix(line, "watch: "); ok {
		w.watch = map[string]bool{}
		for _, p := range w.who(rest) {
			w.watch[p.me.ID] = true
		}
	}
}

// flush writes comments down: behind what is concluded before the line that they belong
// to.
func (w *world) flush() {
	for _, line := range w.comments {
		fmt.Fprintln(&w.out, line)
	}
	w.comments = nil
}

// found makes a fleet: "12 hosts in eu-1,eu-2; 10 dependencies".
func (w *world) found(s string) {
	m := regexp.MustCompile(`^ (\d+) hosts in ([\w,-]+); (\d+) dependencies$`).FindStringSubmatch(s)
	if m == nil {
		w.t.Fatalf("fleet:%s", s)
	}
	zones := strings.Split(m[2], ",")
	w.zones, w.deps = len(zones), w.number(m[3])
	w.cut, w.down = map[[2]*person]bool{}, map[*person]bool{}
	for i := range w.number(m[1]) {
		name := fmt.Sprint("h", i+1)
		p := &person{world: w, me: Origin{ID: name, Service: "checkout", Host: name, Zone: zones[i%len(zones)]}}
		p.start()
		w.people = append(w.people, p)
	}
}

func (w *world) policy(s string) {
	for setting := range strings.FieldsSeq(s) {
		key, value, _ := strings.Cut(setting, "=")
		switch key {
		case "mode":
			w.fleet.Mode = policy.FleetMode(value)
		case "without_traffic":
			w.idle.Mode = policy.FleetMode(value)
		case "max_instances":
			w.fleet.MaxInstances = float64(w.number(value)) / 100
		case "probes":
			w.fleet.Probes = w.number(value)
		default:
			w.t.Fatalf("policy: %s", setting)
		}
	}
}

func (w *world) number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// who reads "h1-h3,h5" or "everyone".
func (w *world) who(s string) []*person {
	if s == "everyone" {
		return w.people
	}
	var all []*person
	for part := range strings.SplitSeq(s, ",") {
		from, to, ok := strings.Cut(part, "-")
		if !ok {
			to = from
		}
		for i := w.number(from[1:]); i <= w.number(to[1:]); i++ {
			all = append(all, w.people[i-1])
		}
	}
	return all
}

// events are what a line can say, after its time. \w stands for people.
func (w *world) events() map[string]func(of []*person, m []string) {
	each := func(do func(p *person, m []string)) func([]*person, []string) {
		return func(of []*person, m []string) {
			for _, p := range of {
				do(p, m)
			}
		}
	}
	return map[string]func([]*person, []string){
		`opens? after (\d+) of (\d+) calls fail`: each(func(p *person, m []string) {
			p.sees(w.number(m[0]), w.number(m[1]), 0)
			p.open(0)
		}),
		`sees? (\d+) of (\d+) calls fail(?:, (\d+) good ones lately)?`: each(func(p *person, m []string) {
			good := 0
			if m[2] != "" {
				good = w.number(m[2])
			}
			p.sees(w.number(m[0]), w.number(m[1]), good)
		}),
		`claims? to be (open|well|probing) after (\d+) calls`: each(func(p *person, m []string) {
			p.claim = &Report{Dependency: "payments", Opinion: Open, Calls: uint32(w.number(m[1])), Failures: uint32(w.number(m[1]))} //nolint:gosec // small
			if m[0] != "open" {
				p.claim.Opinion, p.claim.Failures, p.claim.Successes = Well, 0, 9
			}
			p.publish()
		}),
		`claims? that probes (succeed|fail)`: each(func(p *person, m []string) {
			p.claim = &Report{Dependency: "payments", Opinion: Open, Round: p.probes.Round, Probe: Bad}
			if m[0] == "succeed" {
				p.claim.Probe = Good
			}
			p.publish()
		}),
		`stops? lying`: each(func(p *person, _ []string) { p.claim = nil; p.publish() }),
		`finds? (\d+) of its dependencies failing`: each(func(p *person, m []string) {
			p.vitals.Failing = w.number(m[0])
			p.observe()
		}),
		`(lags|is quick again)`: each(func(p *person, m []string) {
			p.vitals.Health = map[string]int{"lags": 5, "is quick again": 0}[m[0]]
			p.observe()
		}),
		`loses? (\d+) of (\d+) members`: each(func(p *person, m []string) {
			p.vitals.Members = w.number(m[1])
			p.observe()
			p.vitals.Members -= w.number(m[0])
			p.observe()
		}),
		`holds? back (\d+) other dependencies`: each(func(p *person, m []string) { p.armed = w.number(m[0]) }),
		`crash(?:es)?`:                         each(func(p *person, _ []string) { p.dead = true }),
		`(?:leave|leaves)`:                     each(func(p *person, _ []string) { p.leave() }),
		`restarts?`:                            each(func(p *person, _ []string) { p.start() }),
		`(?:is|are) cut off from ([\w,-]+)`: func(of []*person, m []string) {
			for _, a := range of {
				for _, b := range w.who(m[0]) {
					w.cut[[2]*person{a, b}], w.cut[[2]*person{b, a}] = true, true
				}
			}
		},
		`hear each other again`: func([]*person, []string) {
			clear(w.cut)
			for _, p := range w.people {
				for h := range p.table.All() {
					p.send(h)
				}
			}
		},
		`finds payments (down|up)`: each(func(p *person, m []string) { w.down[p] = m[0] == "down" }),
		`go(?:es)? on`:             each(func(*person, []string) {}),
	}
}

func (w *world) event(s string) {
	subject, rest, _ := strings.Cut(s, " ")
	rest = strings.Replace(rest, "find payments", "finds payments", 1)
	for pattern, do := range w.events() {
		if m := regexp.MustCompile("^" + pattern + "$").FindStringSubmatch(rest); m != nil {
			do(w.who(subject), m[1:])
			return
		}
	}
	w.t.Fatalf("nothing known is said by %q", s)
}

// turn is what happens by itself within a step of time.
func (w *world) turn() {
	for _, p := range w.people {
		if !p.dead {
			p.turn()
		}
	}
	w.conclude()
}

// conclude lets everybody judge by what it has heard. What is said meanwhile is heard
// when all have judged, and judged in turn.
func (w *world) conclude() {
	w.deliver()
	for range 3 {
		for _, p := range w.people {
			if !p.dead {
				p.judge()
			}
		}
		if !w.deliver() {
			break
		}
	}
	var order []string
	groups := map[string][]*person{}
	for _, p := range w.people {
		if p.news == "" || len(w.watch) > 0 && !w.watch[p.me.ID] {
			continue
		}
		if groups[p.news] == nil {
			order = append(order, p.news)
		}
		groups[p.news] = append(groups[p.news], p)
		p.news = ""
	}
	for _, news := range order {
		w.note(groups[news], news)
	}
}

func (w *world) deliver() bool {
	post := w.post
	w.post = nil
	for _, l := range post {
		l.to.table.Put(w.now, l.Origin, l.Record, l.Raw, l.Age(w.now))
	}
	return len(post) > 0
}

func (w *world) note(who []*person, what string) {
	fmt.Fprintf(&w.out, "%s%5.1fs  %s: %s\n", outcome, time.Duration(w.now).Seconds(), names(who), what)
}

// names writes h1, h2, h3, h5 as h1-h3,h5.
func names(who []*person) string {
	number := func(p *person) int { n, _ := strconv.Atoi(p.me.ID[1:]); return n }
	var parts []string
	for i := 0; i < len(who); {
		j := i
		for j+1 < len(who) && number(who[j+1]) == number(who[j])+1 {
			j++
		}
		part := who[i].me.ID
		if j > i {
			part += "-" + who[j].me.ID
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ",")
}
