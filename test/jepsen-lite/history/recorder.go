package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// flushEvery bounds what a killed process loses.
	flushEvery = 20 * time.Millisecond
	// fileLimit bounds what one process writes; a history beyond it is refused, not
	// cut short in silence.
	fileLimit = 1 << 30
)

// ErrTooLong is the error of a recorder whose file has reached its limit.
var ErrTooLong = errors.New("the history has reached its limit; record less, or run shorter")

// Now is the time of all records: the machine's monotonic clock, in nanoseconds.
func Now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(fmt.Sprintf("read the monotonic clock: %v", err)) // every Linux has it
	}
	return ts.Nano()
}

// Recorder writes the history of one process. It may be used by many goroutines.
// What was added reaches the file within 20 ms, so that a kill loses no more than
// that, and tears the last line at worst.
type Recorder struct {
	mu      sync.Mutex // guards the fields below
	file    *os.File
	buffer  *bufio.Writer
	written int64
	err     error // the first; nothing is written after it

	stop chan struct{}
	done chan struct{}
}

// NewRecorder creates the file; it refuses one that exists, since a line torn by a
// kill must be a file's last. A process that starts again writes another file.
func NewRecorder(path string) (*Recorder, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("record the history: %w", err)
	}
	r := &Recorder{
		file: file, buffer: bufio.NewWriterSize(file, 1<<16),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	go r.flush()
	return r, nil
}

// Add records one of the types of this package, given as a value. What goes wrong
// is told by Close.
func (r *Recorder) Add(record any) {
	kind, ok := kindOf(record)
	if !ok {
		r.keep(fmt.Errorf("record the history: %T is no record", record))
		return
	}
	body, err := json.Marshal(record)
	if err != nil {
		r.keep(fmt.Errorf("record the history: %w", err))
		return
	}
	line := make([]byte, 0, len(body)+32)
	line = fmt.Appendf(line, `{"kind":%q`, kind)
	if len(body) > len("{}") {
		line = append(line, ',')
	}
	line = append(append(line, body[1:]...), '\n')

	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return
	}
	if r.written += int64(len(line)); r.written > fileLimit {
		r.err = fmt.Errorf("record %s: %w", r.file.Name(), ErrTooLong)
		return
	}
	if _, err := r.buffer.Write(line); err != nil {
		r.err = fmt.Errorf("record the history: %w", err)
	}
}

// Close writes what is left and tells the first error that the recorder met.
func (r *Recorder) Close() error {
	close(r.stop)
	<-r.done
	r.keep(r.buffer.Flush())
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.err, r.file.Close())
}

// keep remembers the first error.
func (r *Recorder) keep(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
}

func (r *Recorder) flush() {
	defer close(r.done)
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-tick.C:
		}
		r.mu.Lock()
		if err := r.buffer.Flush(); r.err == nil {
			r.err = err
		}
		r.mu.Unlock()
	}
}

func kindOf(record any) (Kind, bool) {
	switch record.(type) {
	case Run:
		return KindRun, true
	case Op:
		return KindOp, true
	case Watch:
		return KindWatch, true
	case Decision:
		return KindDecision, true
	case Update:
		return KindUpdate, true
	case Guard:
		return KindGuard, true
	case Peers:
		return KindPeers, true
	case Calls:
		return KindCalls, true
	case Fault:
		return KindFault, true
	case Server:
		return KindServer, true
	case Applied:
		return KindApplied, true
	case Lead:
		return KindLead, true
	case End:
		return KindEnd, true
	case Usage:
		return KindUsage, true
	default:
		return "", false
	}
}
