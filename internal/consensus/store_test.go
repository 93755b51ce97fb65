package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// faulty is a disk that can be told to misbehave.
type faulty struct {
	innerStore
	before func(op string) error // runs before the operation; an error replaces it
	after  func(op string) error // runs after it: written, but reported as failed
}

func (f *faulty) around(op string, run func() error) error {
	if f.before != nil {
		if err := f.before(op); err != nil {
			return err
		}
	}
	if err := run(); err != nil {
		return err
	}
	if f.after != nil {
		return f.after(op)
	}
	return nil
}

func (f *faulty) StoreLogs(logs []*raft.Log) error {
	return f.around("StoreLogs", func() error { return f.innerStore.StoreLogs(logs) })
}

func (f *faulty) DeleteRange(first, last uint64) error {
	return f.around("DeleteRange", func() error { return f.innerStore.DeleteRange(first, last) })
}

func (f *faulty) Set(key, value []byte) error {
	return f.around("Set "+string(key), func() error { return f.innerStore.Set(key, value) })
}

func (f *faulty) GetLog(index uint64, l *raft.Log) error {
	return f.around("GetLog", func() error { return f.innerStore.GetLog(index, l) })
}

// memory is a disk that loses nothing and keeps nothing.
type memory struct{ *raft.InmemStore }

func (memory) Close() error { return nil }

// newTestStore returns a store over inner that reports its failure to *failed.
func newTestStore(inner innerStore) (s *store, failed *error) {
	failed = new(error)
	s = &store{inner: inner, path: "raft.db", counters: &counters{}}
	s.fail = func(err error) { *failed = err }
	s.dog = &watchdog{stall: 2 * time.Second, fatal: 10 * time.Second, silence: func(bool) {}, fail: s.fail}
	return s, failed
}

func openTestStore(t *testing.T, dir string) *store {
	t.Helper()
	s, err := openStore(Config{DataDir: dir, Timing: DefaultTiming(), Logger: testLogger(t, "store")}, &counters{}, func(bool) {}, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func entries(first, count int) []*raft.Log {
	logs := make([]*raft.Log, count)
	for i := range logs {
		logs[i] = &raft.Log{Index: uint64(first + i), Term: 1, Data: fmt.Appendf(nil, "entry-%d-%s", first+i, strings.Repeat("x", 100))}
	}
	return logs
}

func TestVoteIsOneWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openTestStore(t, dir)
	if _, err := s.GetUint64([]byte(keyVoteTerm)); !isNotFound(err) {
		t.Errorf("vote before the first: %v", err)
	}
	must(t, s.SetUint64([]byte(keyTerm), 7))
	must(t, s.SetUint64([]byte(keyVoteTerm), 6))
	must(t, s.Set([]byte(keyVoteCandidate), []byte("old")))
	must(t, s.SetUint64([]byte(keyVoteTerm), 7))
	must(t, s.close()) // the crash between the two writes

	s = openTestStore(t, dir)
	defer s.close()
	if term, err := s.GetUint64([]byte(keyVoteTerm)); err != nil || term != 6 {
		t.Errorf("term of the last vote = %d, %v; want 6: the vote of term 7 was never complete", term, err)
	}
	if candidate, err := s.Get([]byte(keyVoteCandidate)); err != nil || string(candidate) != "old" {
		t.Errorf("candidate = %q, %v", candidate, err)
	}
	must(t, s.SetUint64([]byte(keyVoteTerm), 8))
	must(t, s.Set([]byte(keyVoteCandidate), []byte("new")))
	term, err := s.GetUint64([]byte(keyVoteTerm))
	candidate, err2 := s.Get([]byte(keyVoteCandidate))
	if err != nil || err2 != nil || term != 8 || string(candidate) != "new" {
		t.Errorf("vote = %d %q, %v %v", term, candidate, err, err2)
	}
}

func TestAbsentValuesReadAsRaftExpects(t *testing.T) {
	t.Parallel()
	s, failed := newTestStore(memory{raft.NewInmemStore()})
	for _, key := range []string{keyVoteTerm, keyTerm} {
		if _, err := s.GetUint64([]byte(key)); err == nil || err.Error() != "not found" {
			t.Errorf("%s: %v", key, err)
		}
	}
	var l raft.Log
	if err := s.GetLog(5, &l); err != raft.ErrLogNotFound { //nolint:errorlint // raft compares so
		t.Errorf("absent entry: %v", err)
	}
	if *failed != nil {
		t.Error("absence is no failure:", *failed)
	}
}

func TestDamagedEntriesAreNeverServed(t *testing.T) {
	t.Parallel()
	damage := map[string]func(*raft.Log){
		"data":        func(l *raft.Log) { l.Data = append([]byte(nil), l.Data...); l.Data[3] ^= 1 },
		"term":        func(l *raft.Log) { l.Term++ },
		"type":        func(l *raft.Log) { l.Type = raft.LogNoop },
		"index":       func(l *raft.Log) { l.Index++ },
		"checksum":    func(l *raft.Log) { l.Extensions = append([]byte(nil), l.Extensions...); l.Extensions[4] ^= 1 },
		"no checksum": func(l *raft.Log) { l.Extensions = nil },
	}
	for name, change := range damage {
		t.Run(name, func(t *testing.T) {
			inner := raft.NewInmemStore()
			s, failed := newTestStore(&faulty{innerStore: memory{inner}})
			must(t, s.StoreLogs(entries(1, 3)))
			var l raft.Log
			must(t, s.GetLog(2, &l))
			s.inner = &damaged{innerStore: s.inner, change: change}
			err := s.GetLog(2, &l)
			if !errors.Is(err, ErrCorrupt) || !errors.Is(*failed, ErrCorrupt) {
				t.Fatalf("damaged entry: %v, failure %v", err, *failed)
			}
			for _, part := range []string{"raft.db", "2", "remove this member"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("message %q does not mention %q", err, part)
				}
			}
			s.inner = memory{inner}
			if err := s.GetLog(1, &l); err == nil {
				t.Error("the store still serves after it failed")
			}
		})
	}
}

// damaged changes entries as they are read.
type damaged struct {
	innerStore
	change func(*raft.Log)
}

func (d *damaged) GetLog(index uint64, l *raft.Log) error {
	err := d.innerStore.GetLog(index, l)
	d.change(l)
	return err
}

func TestReceivedEntriesAreVerified(t *testing.T) {
	t.Parallel()
	leader, _ := newTestStore(memory{raft.NewInmemStore()})
	logs := entries(1, 2)
	must(t, leader.StoreLogs(logs))
	inner := raft.NewInmemStore()
	follower, failed := newTestStore(memory{inner})
	sent := *logs[1]
	sent.Data = []byte("changed on the way")
	if err := follower.StoreLogs([]*raft.Log{logs[0], &sent}); !errors.Is(err, ErrCorrupt) || !errors.Is(*failed, ErrCorrupt) {
		t.Errorf("damaged entry was stored: %v", err)
	}
	if last, _ := inner.LastIndex(); last != 0 {
		t.Error("something was written of a batch with a damaged entry")
	}
}

func TestStableValuesAreVerified(t *testing.T) {
	t.Parallel()
	inner := raft.NewInmemStore()
	s, failed := newTestStore(memory{inner})
	must(t, s.SetUint64([]byte(keyTerm), 7))
	value, _ := inner.Get([]byte(keyTerm))
	binary.BigEndian.PutUint64(value, 8)
	must(t, inner.Set([]byte(keyTerm), value))
	if term, err := s.GetUint64([]byte(keyTerm)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("damaged term reads as %d, %v", term, err)
	}
	if !errors.Is(*failed, ErrCorrupt) {
		t.Error("failure:", *failed)
	}
}

func TestFirstErrorIsTheLast(t *testing.T) {
	t.Parallel()
	calls := 0
	s, failed := newTestStore(&faulty{innerStore: memory{raft.NewInmemStore()}, before: func(string) error {
		if calls++; calls == 1 {
			return syscall.EIO // as fsync reports it once
		}
		return nil
	}})
	if err := s.StoreLogs(entries(1, 1)); !errors.Is(err, syscall.EIO) || !errors.Is(*failed, syscall.EIO) {
		t.Fatalf("store: %v, failure %v", err, *failed)
	}
	if err := s.StoreLogs(entries(1, 1)); err == nil || calls != 1 {
		t.Errorf("asked the disk %d times, the last time: %v", calls, err)
	}
}

func TestFailedCallEndsRaftsGoroutine(t *testing.T) {
	t.Parallel()
	s, _ := newTestStore(&faulty{innerStore: memory{raft.NewInmemStore()}, before: func(string) error { return syscall.EIO }})
	s.live.Store(true)
	var returned, deferred atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer deferred.Store(true)
		_ = s.SetUint64([]byte(keyTerm), 2) // raft panics if this returns an error
		returned.Store(true)
	}()
	<-done
	if returned.Load() || !deferred.Load() {
		t.Errorf("returned %v, deferred functions ran %v", returned.Load(), deferred.Load())
	}
}

func TestPanicOfTheDatabaseIsAnError(t *testing.T) {
	t.Parallel()
	s, failed := newTestStore(&faulty{innerStore: memory{raft.NewInmemStore()}, before: func(string) error { panic("page 7 has unexpected type") }})
	if err := s.StoreLogs(entries(1, 1)); !errors.Is(err, ErrCorrupt) || !strings.Contains((*failed).Error(), "page 7") {
		t.Errorf("panic became %v", err)
	}
}

func TestWatchdog(t *testing.T) {
	t.Parallel()
	tests := []struct {
		hang       time.Duration
		silent     bool // at 3 s
		stillThere bool // silent after the write returned
		fatal      bool
	}{
		{hang: time.Second},
		{hang: 5 * time.Second, silent: true},
		{hang: 20 * time.Second, silent: true, fatal: true},
	}
	for _, test := range tests {
		t.Run(test.hang.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var silent atomic.Int32
				var fatal atomic.Pointer[error]
				s, _ := newTestStore(&faulty{innerStore: memory{raft.NewInmemStore()}, before: func(string) error {
					time.Sleep(test.hang) //nolint:forbidigo // virtual time
					return nil
				}})
				s.dog.silence = func(on bool) {
					if on {
						silent.Add(1)
					} else {
						silent.Add(-1)
					}
				}
				s.dog.fail = func(err error) { fatal.Store(&err) }
				go func() { _ = s.StoreLogs(entries(1, 1)) }()
				time.Sleep(3 * time.Second) //nolint:forbidigo // virtual time
				if got := silent.Load() > 0; got != test.silent {
					t.Errorf("silent after 3 s = %v, want %v", got, test.silent)
				}
				time.Sleep(9 * time.Second) //nolint:forbidigo // virtual time
				if got := fatal.Load() != nil; got != test.fatal {
					t.Errorf("fatal after 12 s = %v, want %v", got, test.fatal)
				}
				time.Sleep(time.Minute) //nolint:forbidigo // virtual time
				if silent.Load() != 0 {
					t.Error("still silent after the write returned")
				}
			})
		})
	}
}

func TestTruncatedLogIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openTestStore(t, dir)
	must(t, s.SetUint64([]byte(keyTerm), 1))
	for i := range 20 {
		must(t, s.StoreLogs(entries(1+i*50, 50)))
	}
	must(t, s.close())
	whole, err := os.ReadFile(s.path)
	must(t, err)
	for _, size := range []int{1, 4095, 4096, 8192, 20_000, len(whole) / 2} {
		must(t, os.WriteFile(s.path, whole[:size], 0o600))
		_, err := openStore(Config{DataDir: dir, Timing: DefaultTiming()}, &counters{}, func(bool) {}, func(error) {})
		if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("log cut to %d of %d bytes: %v", size, len(whole), err)
		}
		if !strings.Contains(err.Error(), s.path) || !strings.Contains(err.Error(), "join it again") {
			t.Errorf("message does not say which file and what to do: %v", err)
		}
	}
}

// Whatever byte of the file is damaged: it is refused, or what is read is right.
func TestDamagedLogIsNeverServed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openTestStore(t, dir)
	const count = 400
	for i := range count / 50 {
		must(t, s.StoreLogs(entries(1+i*50, 50)))
	}
	must(t, s.SetUint64([]byte(keyTerm), 9))
	must(t, s.close())
	whole, err := os.ReadFile(s.path)
	must(t, err)
	want := entries(1, count)
	random := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for range 150 {
		at := random.IntN(len(whole))
		if random.IntN(3) == 0 { // page headers and first elements
			at = at&^4095 + random.IntN(64)
		}
		broken := append([]byte(nil), whole...)
		broken[at] ^= 1 << random.IntN(8)
		must(t, os.WriteFile(s.path, broken, 0o600))
		if err := readAll(dir, want); err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("byte %d: %v", at, err)
			}
			refused++
		}
	}
	if refused < 20 {
		t.Errorf("only %d of 150 damages were noticed", refused)
	}
}

// readAll opens a store and compares what it serves.
func readAll(dir string, want []*raft.Log) error {
	s, err := openStore(Config{DataDir: dir, Timing: DefaultTiming()}, &counters{}, func(bool) {}, func(error) {})
	if err != nil {
		return err
	}
	defer func() { _ = s.close() }()
	for _, w := range want {
		var l raft.Log
		if err := s.GetLog(w.Index, &l); errors.Is(err, raft.ErrLogNotFound) {
			return fmt.Errorf("%w: entry %d is missing", ErrCorrupt, w.Index) // restore and NewRaft notice
		} else if err != nil {
			return err
		}
		if string(l.Data) != string(w.Data) || l.Term != w.Term {
			return fmt.Errorf("entry %d is wrong", w.Index)
		}
	}
	term, err := s.GetUint64([]byte(keyTerm))
	if err == nil && term != 9 {
		return fmt.Errorf("term is %d", term)
	}
	return err
}

func TestLockedLogIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openTestStore(t, dir)
	defer s.close()
	_, err := openStore(Config{DataDir: dir, Timing: DefaultTiming()}, &counters{}, func(bool) {}, func(error) {})
	if !errors.Is(err, ErrLocked) {
		t.Errorf("second process: %v", err)
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
