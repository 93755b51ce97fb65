package client

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLocalFile(t *testing.T) {
	var log bytes.Buffer
	path := filepath.Join(t.TempDir(), "overrides.json")
	f := &localFile{path: path, logger: slog.New(slog.NewTextHandler(&log, nil))}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	look := func(what string, want bool) {
		t.Helper()
		if l, changed := f.look(); changed != want {
			t.Errorf("%s: changed is %v (%+v), want %v", what, changed, l, want)
		}
	}
	look("no file", false)
	write(`{"flags":{"beta":true}}`)
	look("a new file", true)
	look("the same file", false)
	write(`{"flags":`)
	log.Reset()
	look("a broken file", false)
	look("the same broken file", false)
	if n := strings.Count(log.String(), "not obeyed"); n != 1 || !strings.Contains(log.String(), path) {
		t.Errorf("a broken file is reported %d times:\n%s", n, log.String())
	}
	write(strings.Repeat(" ", maxLocalBytes) + `{}`)
	log.Reset()
	look("a huge file", false)
	if !strings.Contains(log.String(), "larger than 1048576 bytes") {
		t.Errorf("a huge file is reported as:\n%s", log.String())
	}
	write(`{"disable":true}`)
	if l, changed := f.look(); !changed || !l.Disable {
		t.Errorf("a mended file: %+v, %v", l, changed)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	look("a directory", false)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if l, changed := f.look(); !changed || l != nil {
		t.Errorf("a removed file: %+v, %v", l, changed)
	}
}

func TestDisableEnvironment(t *testing.T) {
	for text, want := range map[string]bool{"": false, "0": false, "false": false, "1": true, "true": true, "yes": true, "please": true} {
		t.Setenv(disableEnv, text)
		if got := disabledByEnvironment(); got != want {
			t.Errorf("%s=%q disables: %v, want %v", disableEnv, text, got, want)
		}
	}
}

// An id stays with its directory, and belongs to one process at a time.
func TestInstanceID(t *testing.T) {
	config := &Config{Service: "shop", CacheDir: filepath.Join(t.TempDir(), "cache")}
	first, err := identify(config)
	if err != nil || !strings.HasPrefix(first.id, "shop-") {
		t.Fatalf("got %q, %v", first.id, err)
	}
	second, err := identify(config)
	if err != nil || second.id == first.id {
		t.Errorf("a second process has the id %q as well, %v", second.id, err)
	}
	if err := first.release(); err != nil {
		t.Fatal(err)
	}
	third, err := identify(config)
	if err != nil || third.id != first.id {
		t.Errorf("after a restart the id is %q, it was %q; %v", third.id, first.id, err)
	}
	if err := third.release(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config.CacheDir, "instance-id"), bytes.Repeat([]byte{7}, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	if fourth, err := identify(config); err != nil || !strings.HasPrefix(fourth.id, "shop-") || fourth.release() != nil {
		t.Errorf("a file that holds no id: %q, %v", fourth.id, err)
	}
	if given, err := identify(&Config{Service: "shop", InstanceID: "pod-7", CacheDir: config.CacheDir}); err != nil || given.id != "pod-7" {
		t.Errorf("the id of the configuration is ignored: %q, %v", given.id, err)
	}
}
