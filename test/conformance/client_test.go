package conformance

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// The types of flags that providers know.
const (
	boolean = "boolean"
	text    = "string"
	number  = "number"
	integer = "integer" // a number, which not every provider tells apart
	object  = "object"
)

// The events of providers.
const (
	ready   = "PROVIDER_READY"
	changed = "PROVIDER_CONFIGURATION_CHANGED"
	stale   = "PROVIDER_STALE"
	failed  = "PROVIDER_ERROR"
)

// patience is how long anything that must happen may take: providers wait some
// seconds before they try a server again.
const patience = 45 * time.Second

// details is what a provider says of one flag.
type details struct {
	Value    any            `json:"value"`
	Variant  string         `json:"variant"`
	Reason   string         `json:"reason"`
	Code     string         `json:"code"`
	Message  string         `json:"message"`
	Metadata map[string]any `json:"metadata"`
}

// provider is an OpenFeature provider that is connected to one server.
type provider interface {
	// evaluate asks for a flag. Of a provider for browsers the context is set first.
	evaluate(t *testing.T, kind, key string, byDefault any, context map[string]any) details
	// events are those since the start, in their order.
	events() *events
}

// traits are the ways in which providers differ whatever the server does.
type traits struct {
	name string
	// web is a provider for browsers: it has evaluated everything beforehand.
	web bool
	// noEvents has no stream and thus no events.
	noEvents bool
	// noMetadata leaves out the metadata of flags.
	noMetadata bool
	// noKeys does not tell which flags changed.
	noKeys bool
	// noNothing cannot take an answer without a value, and says ERROR where the
	// caller's default applies; the caller gets it all the same.
	noNothing bool
	// oldProtocol has flags without a default variant, and disabled ones, as the
	// first version of the protocol has them.
	oldProtocol bool
	// caches keeps what does not depend on the context until it changes.
	caches bool
	// local goes on deciding while its server is down.
	local bool
	// connect starts it.
	connect func(t *testing.T, at address) provider
}

// address is where a server's façades are.
type address struct {
	host     string
	port     int
	selector string
	context  map[string]any // for providers for browsers
}

// event is something that a provider told of itself.
type event struct {
	Name    string   `json:"event"`
	Flags   []string `json:"flags"`
	Message string   `json:"message"`
}

// events collects what comes and lets one wait for it.
type events struct {
	mu   sync.Mutex
	all  []event
	more chan struct{} // closed and replaced with every event
}

func newEvents() *events { return &events{more: make(chan struct{})} }

func (e *events) add(ev event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
	close(e.more)
	e.more = make(chan struct{})
}

// mark is where waiting begins.
func (e *events) mark() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.all)
}

// wait waits for an event of one of the names after a mark.
func (e *events) wait(t *testing.T, mark int, names ...string) event {
	t.Helper()
	limit := time.After(patience)
	for {
		e.mu.Lock()
		seen, more := e.all[mark:], e.more
		e.mu.Unlock()
		if i := slices.IndexFunc(seen, func(ev event) bool { return slices.Contains(names, ev.Name) }); i >= 0 {
			return seen[i]
		}
		select {
		case <-more:
		case <-limit:
			t.Fatalf("no event of %q within %s, but %+v", names, patience, seen)
		}
	}
}

// eventually asks again until a flag is as it should be; how long that may take
// is the provider's business.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	limit := time.After(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-limit:
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

// same compares values as JSON does: 1 is 1.0.
func same(a, b any) bool { return plain(a) == plain(b) }

func plain(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%#v", v)
	}
	return string(b)
}
