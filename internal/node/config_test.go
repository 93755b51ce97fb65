package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "server.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrintShowsOrigins(t *testing.T) {
	path := writeFile(t, "expect: 3\njoin:\n  - a\n  - b:9\n  - ::1\ndrain-delay: 5s\nnudge: off\nlog-level: warn\n")
	s, err := Load([]string{"--raft-addr", "127.0.0.1:0", "--config=" + path, "--log-level=debug"},
		[]string{"HOLDFAST_PORT_BASE=8000", "HOLDFAST_DRAIN_DELAY=1m30s", "HOLDFAST_ADDR=x", "HOME=/"})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := s.Print(&out); err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(out.String(), path, "server.yaml")
	golden := filepath.Join("testdata", "config-print.golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Fatal(diff)
	}
}

func TestPrintedConfigurationIsAFile(t *testing.T) {
	first, err := Load([]string{"--expect=3", "--join=a,b,[::1]:7", "--insecure", "--bind=0.0.0.0", "--advertise=h", "--dead-server-timeout=24h"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := first.Print(&out); err != nil {
		t.Fatal(err)
	}
	second, err := Load([]string{"--config", writeFile(t, out.String())}, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	second.Config.File = ""
	if diff := cmp.Diff(first.Config, second.Config); diff != "" {
		t.Fatal(diff)
	}
}

func TestPrecedence(t *testing.T) {
	path := writeFile(t, "shutdown-timeout: 1s\ndrain-jitter: 1s\ndrain-delay: 1s\n")
	s, err := Load([]string{"--config", path, "--shutdown-timeout", "3s"},
		[]string{"HOLDFAST_SHUTDOWN_TIMEOUT=2s", "HOLDFAST_DRAIN_JITTER=2s"})
	if err != nil {
		t.Fatal(err)
	}
	if c := s.Config; c.ShutdownTimeout != 3*time.Second || c.DrainJitter != 2*time.Second || c.DrainDelay != time.Second {
		t.Fatalf("%+v", c)
	}
}

func TestEverySettingWorksInEverySource(t *testing.T) {
	values := map[string]string{
		"expect": "3", "port-base": "9000", "snapshot-threshold": "100", "max-sessions": "7", "dev": "true", "insecure": "true", "nudge": "false",
		"timing": "slow", "log-level": "debug", "log-format": "json", "join": "a:1,b:2", "data-dir": "d", "node-id": "n",
		"source-ip": "127.0.0.1", "bind": "127.0.0.1", "advertise": "h", "gossip-key-file": "k",
		"api-addr": "127.0.0.1:1", "http-addr": "127.0.0.1:2", "raft-addr": "127.0.0.1:3", "gossip-addr": "127.0.0.1:4", "flags-addr": "127.0.0.1:5",
		"flags-token-file": "f", "flags-cors-origins": "http://a,https://b:8443",
		"tls-ca": "a", "tls-cert": "b", "tls-key": "c",
		"dead-server-timeout": "1h", "drain-delay": "1s", "drain-jitter": "3s", "shutdown-timeout": "9s",
	}
	var args, environ []string
	var file strings.Builder
	for key, value := range values {
		args = append(args, "--"+key+"="+value)
		environ = append(environ, variable(key)+"="+value)
		file.WriteString(key + ": \"" + value + "\"\n")
	}
	path := writeFile(t, file.String())
	var configs []Config
	for _, load := range []func() (*Settings, error){
		func() (*Settings, error) { return Load(args, nil) },
		func() (*Settings, error) { return Load(nil, environ) },
		func() (*Settings, error) { return Load([]string{"--config", path}, nil) },
		func() (*Settings, error) { return Load(nil, []string{"HOLDFAST_CONFIG=" + path}) },
	} {
		s, err := load()
		if err != nil {
			t.Fatal(err)
		}
		if len(s.origins) < len(values) {
			t.Fatalf("%d of %d settings have an origin", len(s.origins), len(values))
		}
		s.Config.File = ""
		configs = append(configs, s.Config)
	}
	for _, c := range configs[1:] {
		if diff := cmp.Diff(configs[0], c); diff != "" {
			t.Error(diff)
		}
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	path := writeFile(t, "rafft-addr: x\nexpect: many\ndrain-delay: 5\ntiming: fast\njoin: {a: b}\nexpect: 3\nconfig: y\n")
	_, err := Load([]string{"--config", path, "--log-lebel=debug", "--expect=-1", "--insecure=perhaps", "stray", "--source-ip", "nowhere", "--bind"},
		[]string{"HOLDFAST_RAFT_ADR=x", "HOLDFAST_API_ADDR=nonsense", "HOLDFAST_FAULTS=ok"})
	if _, ok := errors.AsType[*ConfigError](err); !ok {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(err.Error(), path, "server.yaml")
	for _, want := range []string{
		"unknown flag --log-lebel; did you mean --log-level?",
		`unexpected argument "stray"`,
		"flag --bind needs a value",
		"flag --insecure: insecure \"perhaps\"",
		"expect -1: must be between 1 and 9",
		"source-ip \"nowhere\"",
		"unknown variable HOLDFAST_RAFT_ADR; did you mean HOLDFAST_RAFT_ADDR?",
		`api-addr "nonsense": must be host:port`,
		"unknown key rafft-addr (server.yaml:1); did you mean raft-addr?",
		`file server.yaml:2: expect "many": must be an integer`,
		`file server.yaml:3: drain-delay "5":`,
		`file server.yaml:4: timing "fast": must be default or slow`,
		"file server.yaml:5: join: must be a single value",
		"file server.yaml:6: expect is given twice",
		"file server.yaml:7: config names this file",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestPlaintextBeyondLoopbackIsRefused(t *testing.T) {
	_, err := Load([]string{"--bind=10.0.0.1"}, nil)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"api-addr", "raft-addr", "gossip-addr", "holdfast tls cert create", "gossip-key-file", "--insecure"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	for _, args := range [][]string{
		{"--bind=10.0.0.1", "--insecure"},
		{"--bind=10.0.0.1", "--tls-ca=a", "--tls-cert=b", "--tls-key=c", "--gossip-key-file=d"},
		{"--bind=::1"},
		{"--bind=localhost"},
		nil,
	} {
		if _, err := Load(args, nil); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
	for _, args := range [][]string{
		{"--bind=0.0.0.0", "--insecure"},
		{"--tls-ca=a"},
		{"--dev", "--bind=10.0.0.1", "--insecure"},
		{"--expect=3"},
		{"--node-id=x y"},
	} {
		if _, err := Load(args, nil); err == nil {
			t.Errorf("%v: accepted", args)
		}
	}
}

func TestHelp(t *testing.T) {
	if _, err := Load([]string{"--nonsense", "--help"}, nil); !errors.Is(err, ErrHelp) {
		t.Fatal(err)
	}
	if !strings.Contains(Usage(), "--raft-addr host:port") {
		t.Fatal(Usage())
	}
}

func TestUnreadableFiles(t *testing.T) {
	for _, text := range []string{"- a\n", "a: [", "---\n---\n", "x"} {
		if _, err := Load([]string{"--config", writeFile(t, text)}, nil); err == nil {
			t.Errorf("accepted %q", text)
		}
	}
	if _, err := Load([]string{"--config", writeFile(t, "")}, nil); err != nil {
		t.Error(err)
	}
	if _, err := Load([]string{"--config", "/does/not/exist"}, nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
}
