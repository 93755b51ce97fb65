package history

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// lineLimit bounds a line: a snapshot of everything that the largest run writes.
const lineLimit = 16 << 20

// Load reads the history of a run: DIR/history/*.jsonl, written by recorders, and
// DIR/trace/PROCESS.INCARNATION.jsonl, written by servers and instances themselves. A last line without its
// end is skipped and the file named in Torn; anything else that is no record is
// an error that tells file and line.
func Load(dir string) (*History, error) {
	h := &History{}
	files, err := filepath.Glob(filepath.Join(dir, "history", "*.jsonl"))
	if err != nil {
		return nil, fmt.Errorf("load history: %w", err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("load history: %s has no history/*.jsonl: %w", dir, fs.ErrNotExist)
	}
	for _, file := range files {
		if err := h.appendFile(file, h.add); err != nil {
			return nil, err
		}
	}
	traces, err := filepath.Glob(filepath.Join(dir, "trace", "*.jsonl"))
	if err != nil {
		return nil, fmt.Errorf("load history: %w", err)
	}
	for _, file := range traces {
		server, incarnation, err := traceOf(file)
		if err != nil {
			return nil, err
		}
		if err := h.appendFile(file, newTrace(h, server, incarnation).add); err != nil {
			return nil, err
		}
	}
	h.Sort()
	return h, nil
}

// Read reads records from one stream; name stands for the file in errors.
func Read(name string, r io.Reader) (*History, error) {
	h := &History{}
	if err := h.append(name, r, h.add); err != nil {
		return nil, err
	}
	h.Sort()
	return h, nil
}

// AppendTrace adds what a process wrote into its trace in one incarnation: what it
// applied and restored, when it led, and what it held of others. Everything else in
// it is skipped.
func (h *History) AppendTrace(name, process string, incarnation int, r io.Reader) error {
	return h.append(name, r, newTrace(h, process, incarnation).add)
}

// Sort puts every slice into the order of time.
func (h *History) Sort() {
	byTime(h.Ops, func(r Op) int64 { return r.Call })
	byTime(h.Watches, func(r Watch) int64 { return r.T })
	byTime(h.Decisions, func(r Decision) int64 { return r.T })
	byTime(h.Updates, func(r Update) int64 { return r.T })
	byTime(h.Guards, func(r Guard) int64 { return r.T })
	byTime(h.Peers, func(r Peers) int64 { return r.T })
	byTime(h.Calls, func(r Calls) int64 { return r.T })
	byTime(h.Faults, func(r Fault) int64 { return r.T })
	byTime(h.Servers, func(r Server) int64 { return r.T })
	byTime(h.Applied, func(r Applied) int64 { return r.T })
	byTime(h.Leads, func(r Lead) int64 { return r.T })
	byTime(h.Ends, func(r End) int64 { return r.T })
	byTime(h.Usages, func(r Usage) int64 { return r.T })
}

func byTime[R any](records []R, at func(R) int64) {
	slices.SortStableFunc(records, func(a, b R) int { return cmp.Compare(at(a), at(b)) })
}

func traceOf(file string) (process string, incarnation int, err error) {
	name := strings.TrimSuffix(filepath.Base(file), ".jsonl")
	process, number, ok := strings.Cut(name, ".")
	incarnation, err = strconv.Atoi(number)
	if !ok || err != nil || incarnation < 1 {
		return "", 0, fmt.Errorf("load history: %s: a trace is named PROCESS.INCARNATION.jsonl, incarnations count from 1", file)
	}
	return process, incarnation, nil
}

func (h *History) appendFile(path string, add func(line []byte) error) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("load history: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read
	return h.append(path, file, add)
}

// append gives each whole line to add.
func (h *History) append(name string, r io.Reader, add func(line []byte) error) error {
	reader := bufio.NewReaderSize(r, 1<<16)
	for number := 1; ; number++ {
		line, err := readLine(reader)
		switch {
		case errors.Is(err, io.EOF):
			if len(line) > 0 {
				h.Torn = append(h.Torn, name)
			}
			return nil
		case err != nil:
			return fmt.Errorf("load history: %s:%d: %w", name, number, err)
		}
		if err := add(line); err != nil {
			return fmt.Errorf("load history: %s:%d: %w", name, number, err)
		}
	}
}

// readLine returns a line without its end, and io.EOF beside one that has none.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		piece, err := r.ReadSlice('\n')
		line = append(line, piece...)
		if len(line) > lineLimit {
			return nil, fmt.Errorf("the line is longer than %d bytes", lineLimit)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return line, err
		}
		return line[:len(line)-1], nil
	}
}

// add takes a line apart: {"kind":"KIND", then the fields of the record.
func (h *History) add(line []byte) error {
	rest, ok := bytes.CutPrefix(line, []byte(`{"kind":"`))
	kind, rest, ended := bytes.Cut(rest, []byte(`"`))
	if !ok || !ended || len(rest) == 0 {
		return errors.New(`no record: it does not begin with {"kind":"…"`)
	}
	body := append([]byte{'{'}, bytes.TrimPrefix(rest, []byte(","))...)
	switch Kind(kind) {
	case KindRun:
		return decode(body, &h.Run)
	case KindOp:
		return push(body, &h.Ops)
	case KindWatch:
		return push(body, &h.Watches)
	case KindDecision:
		return push(body, &h.Decisions)
	case KindUpdate:
		return push(body, &h.Updates)
	case KindGuard:
		return push(body, &h.Guards)
	case KindPeers:
		return push(body, &h.Peers)
	case KindCalls:
		return push(body, &h.Calls)
	case KindFault:
		return push(body, &h.Faults)
	case KindServer:
		return push(body, &h.Servers)
	case KindApplied:
		return push(body, &h.Applied)
	case KindLead:
		return push(body, &h.Leads)
	case KindEnd:
		return push(body, &h.Ends)
	case KindUsage:
		return push(body, &h.Usages)
	default:
		return fmt.Errorf("no record is of kind %q", kind)
	}
}

func push[R any](body []byte, records *[]R) error {
	var record R
	if err := decode(body, &record); err != nil {
		return err
	}
	*records = append(*records, record)
	return nil
}

// decode refuses fields that the record does not have: a history of another
// version must not be judged by half of it.
func decode(body []byte, record any) error {
	strict := json.NewDecoder(bytes.NewReader(body))
	strict.DisallowUnknownFields()
	if err := strict.Decode(record); err != nil {
		return fmt.Errorf("no record: %w", err)
	}
	if strict.InputOffset() != int64(len(body)) {
		return errors.New("no record: something follows it on its line")
	}
	return nil
}
