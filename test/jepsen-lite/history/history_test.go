package history_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

func newRun(t *testing.T) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	for _, sub := range []string{"history", "trace"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir, filepath.Join(dir, "history", "c1.jsonl")
}

func record(t *testing.T, file string, records ...any) {
	t.Helper()
	r, err := history.NewRecorder(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range records {
		r.Add(record)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// fill sets every field of a record to something that is not its zero value.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("x <&> \" é")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1<<53 + 1)
	case reflect.Uint64:
		v.SetUint(1<<64 - 1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(field)
		}
	default:
		panic(v.Kind())
	}
}

func TestWhatIsRecordedIsLoaded(t *testing.T) {
	dir, file := newRun(t)
	var want history.History
	fields := reflect.ValueOf(&want).Elem()
	var records []any
	for i := range fields.NumField() {
		field := fields.Field(i)
		if fields.Type().Field(i).Name == "Torn" {
			continue
		}
		fill(field)
		if field.Kind() == reflect.Slice {
			field = field.Index(0)
		}
		records = append(records, field.Interface())
	}
	record(t, file, records...)
	got, err := history.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, &want) {
		t.Errorf("loaded %+v\nwant %+v", got, &want)
	}
}

func TestLoadMergesFilesByTime(t *testing.T) {
	dir, file := newRun(t)
	record(t, file, history.Op{Client: "c1", Call: 5}, history.Op{Client: "c1", Call: 9})
	record(t, filepath.Join(dir, "history", "c2.jsonl"), history.Op{Client: "c2", Call: 7}, history.Run{Seed: 3})
	h, err := history.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Ops) != 3 || h.Ops[1].Client != "c2" || h.Run.Seed != 3 {
		t.Errorf("loaded %+v", h)
	}
}

func TestLoadSkipsATornLastLine(t *testing.T) {
	dir, file := newRun(t)
	record(t, file, history.Op{Client: "c1", Call: 5})
	write(t, file, `{"kind":"op","client":"c1","ca`)
	h, err := history.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Ops) != 1 || len(h.Torn) != 1 || h.Torn[0] != file {
		t.Errorf("%d operations, torn %v", len(h.Ops), h.Torn)
	}
}

func TestLoadRefusesWhatIsNoRecord(t *testing.T) {
	good := `{"kind":"op","client":"c1","f":"get","call":1,"return":2,"outcome":"ok"}`
	for name, line := range map[string]string{
		"cut off before its end": `{"kind":"op","client":"c1","ca`,
		"another field":          `{"kind":"op","clint":"c1"}`,
		"another kind":           `{"kind":"opera"}`,
		"no kind":                `{"client":"c1"}`,
		"two on a line":          good + good,
		"not JSON":               `hello`,
		"empty":                  ``,
		"another type":           `{"kind":"op","call":"now"}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir, file := newRun(t)
			write(t, file, good+"\n"+line+"\n"+good+"\n")
			h, err := history.Load(dir)
			if err == nil {
				t.Fatalf("loaded %+v", h)
			}
			if !strings.Contains(err.Error(), file+":2:") {
				t.Errorf("%v does not tell %s:2", err, file)
			}
		})
	}
}

func TestLoadRefusesADirectoryWithoutHistory(t *testing.T) {
	if _, err := history.Load(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestLoadReadsTraces(t *testing.T) {
	dir, file := newRun(t)
	record(t, file, history.Run{})
	write(t, filepath.Join(dir, "trace", "s2.3.jsonl"), strings.Join([]string{
		`{"t":9,"m":4,"kind":"duties","pid":1,"server":"s2","term":2,"begin":true}`,
		`{"t":9,"m":5,"kind":"applied","pid":1,"index":7,"term":2,"command":"c0","state":"5a","revision":3,"epoch":1,"request":"ab","effective":true,"restored":false}`,
		`{"t":9,"m":6,"kind":"leadership","pid":1,"id":"s2","leads":true,"term":2}`,
		`{"t":9,"m":7,"kind":"appl`,
	}, "\n"))
	h, err := history.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	applied := []history.Applied{{
		Server: "s2", Incarnation: 3, T: 5, Index: 7, Term: 2, Command: "c0", State: "5a",
		Revision: 3, Epoch: 1, Request: "ab", Effective: true,
	}}
	leads := []history.Lead{{Server: "s2", T: 6, Term: 2, Leads: true}}
	if !reflect.DeepEqual(h.Applied, applied) || !reflect.DeepEqual(h.Leads, leads) || len(h.Torn) != 1 {
		t.Errorf("loaded %+v", h)
	}
}

func TestTracesTellWhatWasHeldOfOthers(t *testing.T) {
	h := &history.History{}
	lines := strings.Join([]string{
		`{"m":1,"kind":"member","pool":"hf-12","name":"i2/a","here":true}`,
		`{"m":2,"kind":"member","pool":"servers","name":"s1/a","here":true}`,
		`{"m":3,"kind":"member","pool":"hf-12","name":"i2/b","here":true}`,
		`{"m":4,"kind":"evidence","origin":"i2","incarnation":1,"sequence":7,"said":{"payments":"open","mail":"well"}}`,
		`{"m":5,"kind":"evidence","origin":"i2","incarnation":1,"sequence":8,"said":{"payments":"open"}}`,
		`{"m":6,"kind":"member","pool":"hf-12","name":"i2/a","here":false}`,
		`{"m":7,"kind":"forgotten","origin":"i2"}`,
	}, "\n") + "\n"
	if err := h.AppendTrace("i1.1.jsonl", "i1", 1, strings.NewReader(lines)); err != nil {
		t.Fatal(err)
	}
	want := []history.Peers{
		{Instance: "i1", T: 1, Members: []string{"i2"}},
		{Instance: "i1", T: 3, Members: []string{"i2"}},
		{Instance: "i1", T: 4, Evidence: map[string]history.Said{
			"i2/": {1, 7, "mail well, payments open"}, "i2/payments": {1, 7, "open"}, "i2/mail": {1, 7, "well"},
		}},
		{Instance: "i1", T: 5, Evidence: map[string]history.Said{"i2/": {1, 8, "payments open"}, "i2/payments": {1, 8, "open"}}},
		{Instance: "i1", T: 6, Members: []string{"i2"}},
		{Instance: "i1", T: 7, Evidence: map[string]history.Said{}},
	}
	if !reflect.DeepEqual(h.Peers, want) {
		t.Errorf("%+v\nwant %+v", h.Peers, want)
	}
}

func TestLoadRefusesTracesThatItCannotPlace(t *testing.T) {
	for name, line := range map[string]string{
		"s1.jsonl":   `{"kind":"duties","m":1}`,
		"s1.0.jsonl": `{"kind":"duties","m":1}`,
		"s1.1.jsonl": `{"kind":"applied","t":1,"index":3}`,
	} {
		dir, file := newRun(t)
		record(t, file, history.Run{})
		write(t, filepath.Join(dir, "trace", name), line+"\n")
		if _, err := history.Load(dir); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRecorderRefusesAFileThatExists(t *testing.T) {
	_, file := newRun(t)
	record(t, file, history.Op{})
	if _, err := history.NewRecorder(file); !errors.Is(err, fs.ErrExist) {
		t.Errorf("%v", err)
	}
}

func TestRecorderTellsWhatItCouldNotRecord(t *testing.T) {
	_, file := newRun(t)
	r, err := history.NewRecorder(file)
	if err != nil {
		t.Fatal(err)
	}
	r.Add(&history.Op{})
	r.Add(history.Op{})
	if err := r.Close(); err == nil || !strings.Contains(err.Error(), "*history.Op") {
		t.Errorf("%v", err)
	}
}

func TestManyMayRecordAtOnce(t *testing.T) {
	dir, file := newRun(t)
	r, err := history.NewRecorder(file)
	if err != nil {
		t.Fatal(err)
	}
	const writers, each = 8, 500
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			for j := range each {
				r.Add(history.Op{Client: fmt.Sprint(i), Call: int64(j)})
			}
		})
	}
	all.Wait()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	h, err := history.Load(dir)
	if err != nil || len(h.Ops) != writers*each {
		t.Errorf("%d operations, %v", len(h.Ops), err)
	}
}

// The process writes a record when told to, and is killed without closing anything.
func TestAKilledProcessLosesLittle(t *testing.T) {
	if file := os.Getenv("RECORD_INTO"); file != "" {
		r, err := history.NewRecorder(file)
		if err != nil {
			t.Fatal(err)
		}
		r.Add(history.Op{Client: "killed", Call: 1})
		select {}
	}
	dir, file := newRun(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", t.Name())
	cmd.Env = append(os.Environ(), "RECORD_INTO="+file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for recorded := false; !recorded; {
		if time.Now().After(deadline) {
			t.Fatal("nothing was flushed within 20 s")
		}
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		recorded = bufio.NewScanner(f).Scan()
		f.Close()
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	h, err := history.Load(dir)
	if err != nil || len(h.Ops) != 1 || h.Ops[0].Client != "killed" {
		t.Errorf("%+v %v", h, err)
	}
}

func TestNowIsMonotonicAndSharedByProcesses(t *testing.T) {
	before := history.Now()
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Skip(err)
	}
	var seconds float64
	if _, err := fmt.Sscan(string(uptime), &seconds); err != nil {
		t.Fatal(err)
	}
	after := history.Now()
	if before <= 0 || after < before {
		t.Errorf("from %d to %d", before, after)
	}
	// Both count from the start of the machine; suspension is the only difference.
	if drift := seconds - time.Duration(after).Seconds(); drift < -1 {
		t.Errorf("%v ahead of the machine's uptime", drift)
	}
}
