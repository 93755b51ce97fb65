//go:build faults

package seam

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Enabled tells whether the seams are compiled in.
const Enabled = true

// ErrInjected is what an armed failpoint returns.
var ErrInjected = errors.New("injected fault")

type action struct {
	fail      bool
	delay     time.Duration
	exit      int
	after     int
	remaining int
}

type points struct {
	mu      sync.Mutex // guards the fields below
	path    string
	modTime time.Time
	checked time.Time
	armed   map[string]*action
}

type tracer struct {
	mu   sync.Mutex // guards file
	file *os.File
	once sync.Once
}

// The one process-wide state of a faults build: seams have no owner to hold it.
var (
	faults = points{path: os.Getenv("HOLDFAST_FAULTS")} //nolint:gochecknoglobals // see above
	trace  tracer                                       //nolint:gochecknoglobals // see above
)

// Fail returns the error that is armed for the point, after its delay. An exit
// action ends the process at once, without cleaning up.
func Fail(point string) error {
	a, ok := faults.take(point)
	if !ok {
		return nil
	}
	Event("failpoint", "point", point)
	time.Sleep(a.delay)
	if a.exit != 0 {
		os.Exit(a.exit)
	}
	if a.fail {
		return fmt.Errorf("failpoint %s: %w", point, ErrInjected)
	}
	return nil
}

func (p *points) take(point string) (action, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reload()
	a, ok := p.armed[point]
	if !ok {
		return action{}, false
	}
	if a.after > 0 {
		a.after--
		return action{}, false
	}
	if a.remaining == 0 {
		return action{}, false
	}
	if a.remaining > 0 {
		a.remaining--
	}
	return *a, true
}

// reload reads the file again when it changed, at most every 20 ms.
func (p *points) reload() {
	if p.path == "" || time.Since(p.checked) < 20*time.Millisecond {
		return
	}
	p.checked = time.Now()
	info, err := os.Stat(p.path)
	if err != nil || info.ModTime().Equal(p.modTime) {
		return
	}
	data, err := os.ReadFile(p.path)
	if err != nil {
		return
	}
	p.modTime = info.ModTime()
	p.armed = make(map[string]*action)
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		p.armed[fields[0]] = parse(fields[1:])
	}
}

func parse(words []string) *action {
	a := &action{remaining: -1}
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "error":
			a.fail = true
		case "delay":
			a.delay, _ = time.ParseDuration(value)
		case "exit":
			a.exit, _ = strconv.Atoi(value)
		case "once":
			a.remaining = 1
		case "count":
			a.remaining, _ = strconv.Atoi(value)
		case "after":
			a.after, _ = strconv.Atoi(value)
		}
	}
	return a
}

// Tracing tells whether events are written anywhere.
func Tracing() bool { return os.Getenv("HOLDFAST_TRACE") != "" }

// Record records what became of the state.
func Record(a *Applied) {
	sum := sha256.Sum256(a.Command)
	fields := []any{
		"index", a.Index, "term", a.Term, "state", hex.EncodeToString(a.State[:]), "epoch", a.Epoch, "revision", a.Revision,
		"effective", a.Effective, "restored", a.Restored,
	}
	if !a.Restored {
		fields = append(fields, "command", hex.EncodeToString(sum[:]), "request", hex.EncodeToString(a.Request))
	}
	Event("applied", fields...)
}

// Event records something that happened, with alternating keys and values.
func Event(kind string, fields ...any) {
	trace.once.Do(trace.open)
	if trace.file == nil {
		return
	}
	record := map[string]any{"t": time.Now().UnixNano(), "m": monotonic(), "kind": kind, "pid": os.Getpid()}
	for i := 0; i+1 < len(fields); i += 2 {
		record[fmt.Sprint(fields[i])] = fields[i+1]
	}
	line, err := json.Marshal(record)
	if err != nil {
		return
	}
	trace.mu.Lock()
	defer trace.mu.Unlock()
	_, _ = trace.file.Write(append(line, '\n'))
}

func (t *tracer) open() {
	path := os.Getenv("HOLDFAST_TRACE")
	if path == "" {
		return
	}
	t.file, _ = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}
