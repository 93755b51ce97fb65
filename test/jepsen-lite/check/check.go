// Package check judges a history. Each rule is a function of the history alone, with
// a name and a statement of what must hold; Rules lists them. The rules know what a
// register, a watch or a breaker is, and nothing of how the product does it.
//
// A rule that found nothing to look at is skipped, one that could not look well
// enough is unknown, and a run in which a fault did not bite or too little happened
// is invalid. None of these is a pass.
package check

import (
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// Result of a rule.
type Result string

// Results, the best first.
const (
	Pass    Result = "pass"
	Skipped Result = "skipped" // the history has nothing of the kind
	Unknown Result = "unknown" // it could not be told
	Invalid Result = "invalid" // the run proves nothing
	Fail    Result = "fail"
)

// evidenceLimit bounds the evidence of one verdict; Why tells how much there was.
const evidenceLimit = 20

// Verdict is what a rule says of a history.
type Verdict struct {
	Rule      string   `json:"rule"`
	Statement string   `json:"statement"`
	Result    Result   `json:"result"`
	Why       string   `json:"why"`
	Evidence  []string `json:"evidence,omitempty"`
	// Checked is how many things the rule looked at.
	Checked int `json:"checked"`
}

// Rule is a line of the table of rules.
type Rule struct {
	Name      string
	Statement string

	check func(*facts) *finding
}

// Options are the deadlines and floors of a run.
type Options struct {
	// Dir is the run's directory; drawings of single registers go to Dir/porcupine.
	// Without it nothing is drawn.
	Dir string `json:"-"`
	// Require names rules that must not be skipped; a run that skips one is invalid.
	Require []string `json:"require,omitempty"`
	// Porcupine is the time allowed for one register.
	Porcupine time.Duration `json:"porcupine"`
	// Heal is how long after the heal everybody may take to agree and to serve.
	Heal time.Duration `json:"heal"`
	// Failover is how long the larger side may be without an acknowledged write.
	Failover time.Duration `json:"failover"`
	// Fresh is how long an instance that is connected may be behind, and how much less
	// than the truth it may tell of its age.
	Fresh time.Duration `json:"fresh"`
	AgeBy time.Duration `json:"age_by"`
	// StaleAfter is the age beyond which an instance must say that it is stale; 0 if it
	// has no such limit.
	StaleAfter time.Duration `json:"stale_after"`
	// Cache is how much of what it obeyed an instance may lose when it is killed.
	Cache time.Duration `json:"cache"`
	// DecisionP99 bounds a decision, DecisionGap the time without one.
	DecisionP99 time.Duration `json:"decision_p99"`
	DecisionGap time.Duration `json:"decision_gap"`
	// OverrideBy is how far from its time an override may end.
	OverrideBy time.Duration `json:"override_by"`
	// Evidence is how long what a peer said may be held without news of it, EvidenceBy
	// what is allowed on top, Dead how long a member that is gone may be listed.
	Evidence   time.Duration `json:"evidence"`
	EvidenceBy time.Duration `json:"evidence_by"`
	Dead       time.Duration `json:"dead"`
	// Outage is how soon an instance must stop calling a dependency that fails.
	Outage time.Duration `json:"outage"`
	// Throughput is the floor of acknowledged operations per second.
	Throughput float64 `json:"throughput"`
	// Packets of gossip are what one process may send per second in any case, PacketsPerNews
	// what it may send on top for each thing that is new; Queue is the most that may wait.
	Packets        float64 `json:"packets"`
	PacketsPerNews float64 `json:"packets_per_news"`
	Queue          int     `json:"queue"`
	// Goroutines, FDs and RSS are what a process may use more at the end than at first:
	// a server may lead that did not, and a heap may have filled up to its next collection.
	Goroutines int   `json:"goroutines"`
	FDs        int   `json:"fds"`
	RSS        int64 `json:"rss"`
	// InstanceGoroutines and InstanceFDs are the same of instances, who never lead.
	InstanceGoroutines int `json:"instance_goroutines"`
	InstanceFDs        int `json:"instance_fds"`
}

// Defaults are the options of a run of three servers and a few instances with the
// product's default timeouts.
func Defaults() Options {
	return Options{
		Porcupine: 20 * time.Second,
		Heal:      20 * time.Second, Failover: 5 * time.Second,
		Fresh: 2 * time.Second, AgeBy: time.Second, Cache: 2 * time.Second,
		DecisionP99: time.Millisecond, DecisionGap: 2 * time.Second,
		OverrideBy: 2 * time.Second,
		Evidence:   15 * time.Second, EvidenceBy: 5 * time.Second, Dead: 30 * time.Second,
		Outage:     10 * time.Second,
		Throughput: 10, Packets: 40, PacketsPerNews: 6, Queue: 4096,
		Goroutines: 40, FDs: 10, RSS: 128 << 20,
		InstanceGoroutines: 15, InstanceFDs: 8,
	}
}

// Judge applies all rules to a history. The verdicts are in the order of Rules.
func Judge(h *history.History, o Options) []Verdict {
	f := newFacts(h, o)
	verdicts := make([]Verdict, 0, len(rules))
	for _, rule := range rules {
		v := rule.check(f).verdict()
		v.Rule, v.Statement = rule.Name, rule.Statement
		if v.Result == Skipped && slices.Contains(o.Require, rule.Name) {
			v.Result, v.Why = Invalid, "the run must show this, and "+v.Why
		}
		verdicts = append(verdicts, v)
	}
	return verdicts
}

// Rules lists the rules.
func Rules() []Rule { return slices.Clone(rules) }

// Overall is the worst of the verdicts. Rules that were skipped leave it at Pass if
// any rule passed.
func Overall(verdicts []Verdict) Result {
	worst := Skipped
	for _, v := range verdicts {
		if v.Result == Pass && worst == Skipped {
			worst = Pass
		}
		if v.Result != Pass && v.Result != Skipped && rank(v.Result) > rank(worst) {
			worst = v.Result
		}
	}
	return worst
}

func rank(r Result) int {
	return slices.Index([]Result{Pass, Skipped, Unknown, Invalid, Fail}, r)
}

// facts is what all rules look at.
type facts struct {
	*history.History
	o   Options
	log *ledger
	// watched is what the pass over the watchers' messages found, once it was made.
	watched watchers
}

func newFacts(h *history.History, o Options) *facts {
	whole := *h
	whole.Peers = filledIn(h)
	if severalEpochs(h) {
		whole.Ops = dated(h.Ops)
	}
	return &facts{History: &whole, o: o, log: newLedger(&whole)}
}

// finding gathers what a rule finds.
type finding struct {
	checked                int
	none                   string // why nothing was checked
	bad, invalid, doubtful []string
}

// looked counts things that were checked.
func (f *finding) looked(n int) { f.checked += n }

// fail tells of a violation.
func (f *finding) fail(format string, args ...any) {
	f.bad = append(f.bad, fmt.Sprintf(format, args...))
}

// void tells why the run proves nothing.
func (f *finding) void(format string, args ...any) {
	f.invalid = append(f.invalid, fmt.Sprintf(format, args...))
}

// doubt tells what could not be decided.
func (f *finding) doubt(format string, args ...any) {
	f.doubtful = append(f.doubtful, fmt.Sprintf(format, args...))
}

func (f *finding) verdict() Verdict {
	v := Verdict{Result: Pass, Why: fmt.Sprintf("%d checked", f.checked), Checked: f.checked}
	switch {
	case len(f.bad) > 0:
		v.Result, v.Evidence = Fail, f.bad
		v.Why = fmt.Sprintf("violated %d times, %d checked", len(f.bad), f.checked)
	case len(f.invalid) > 0:
		v.Result, v.Evidence = Invalid, f.invalid
		v.Why = "the run proves nothing: " + f.invalid[0]
	case len(f.doubtful) > 0:
		v.Result, v.Evidence = Unknown, f.doubtful
		v.Why = fmt.Sprintf("%d could not be decided, %d checked", len(f.doubtful), f.checked)
	case f.checked == 0:
		v.Result, v.Why = Skipped, f.none
		if f.none == "" {
			v.Why = "the history has nothing of the kind"
		}
	}
	if len(v.Evidence) > evidenceLimit {
		v.Evidence = v.Evidence[:evidenceLimit:evidenceLimit]
	}
	return v
}
