package client_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-dev/holdfast/pkg/client"
)

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

func closeClient(t *testing.T, c *client.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestOpenRefusesAWrongConfiguration(t *testing.T) {
	for want, config := range map[string]client.Config{
		"Service is empty":        {},
		"Service: ":               {Service: "s\n"},
		"Service: name has":       {Service: strings.Repeat("s", 250)},
		"InstanceID: ":            {Service: "s", InstanceID: "pod\x1b"},
		"Labels: ":                {Service: "s", Labels: map[string]string{"": "eu-1"}},
		"Namespace":               {Service: "s", Namespace: "a\x00b"},
		"Policies: payments":      {Service: "s", Policies: map[string]string{"payments": `{"circuit_breaker": {"failure_treshold": 3}}`}},
		`did you mean`:            {Service: "s", Policies: map[string]string{"payments": `{"circuit_breaker": {"failure_treshold": 3}}`}},
		"leave the label out":     {Service: "s", Labels: map[string]string{"service": "other"}},
		"is not an IP address":    {Service: "s", Servers: []string{"127.0.0.1:1"}, LocalAddr: "here"},
		"Servers[1]: is empty":    {Service: "s", Servers: []string{"a:1", ""}},
		"missing port in address": {Service: "s", Servers: []string{"10.0.0.1"}},
		"too many colons":         {Service: "s", Servers: []string{"::1:7400"}},
		`leave out "https://"`:    {Service: "s", Servers: []string{"https://10.0.0.1:7400"}},
		`has the port ""`:         {Service: "s", Servers: []string{"10.0.0.1:"}},
		`has the port "74000"`:    {Service: "s", Servers: []string{"10.0.0.1:74000"}},
	} {
		config.Logger = silent()
		if c, err := client.Open(t.Context(), config); err == nil || c != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%+v) = %v, %v; want an error with %q", config, c, err, want)
		}
	}
}

// Open does not hang, whatever the servers do, and everything answers from the code.
func TestOpenWithoutAnybodyThere(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	mute, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	begin := time.Now()
	c, err := client.Open(t.Context(), client.Config{
		Servers: []string{mute.Addr().String(), "127.0.0.1:1"}, Service: "s", OpenTimeout: 50 * time.Millisecond, Logger: silent(), CacheDir: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer closeClient(t, c)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("Open took %s", took)
	}
	if s := c.Status(); s.Source != client.FromDefaults || s.Connected || s.Revision != 0 || s.Age != 0 {
		t.Errorf("status: %+v", s)
	}
	if !c.Bool("x", true).Get() || c.Mode("m").Level().Name != "normal" || c.Evaluate("x").ErrorCode != "PROVIDER_NOT_READY" {
		t.Error("the code's defaults do not apply")
	}
	n, err := client.Do(t.Context(), c, "payments", func(context.Context) (int, error) { return 7, nil })
	if n != 7 || err != nil {
		t.Errorf("a call: %d, %v", n, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	begin = time.Now()
	second, err := client.Open(ended, client.Config{Servers: []string{mute.Addr().String()}, Service: "s", Logger: silent()})
	if err != nil || time.Since(begin) > 3*time.Second {
		t.Errorf("with a context that has ended: %v after %s", err, time.Since(begin))
	}
	closeClient(t, second)
}

func TestDisabledByTheEnvironment(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Setenv("HOLDFAST_DISABLE", "1")
	dir := filepath.Join(t.TempDir(), "cache")
	c, err := client.Open(t.Context(), client.Config{Servers: []string{"127.0.0.1:1"}, Service: "s", Logger: silent(), CacheDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer closeClient(t, c)
	if s := c.Status(); !s.Disabled || s.OverriddenBy != "HOLDFAST_DISABLE" {
		t.Errorf("status: %+v", s)
	}
	if e := c.Evaluate("x"); e.Reason != "DISABLED" || e.ErrorCode != "" {
		t.Errorf("evaluation: %+v", e)
	}
}

func TestLocalOverridesHoldFromTheStart(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	path := filepath.Join(t.TempDir(), "here.json")
	if err := os.WriteFile(path, []byte(`{"flags":{"beta":true}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOLDFAST_LOCAL_OVERRIDES", path)
	c, err := client.Open(t.Context(), client.Config{Service: "s", Logger: silent()})
	if err != nil {
		t.Fatal(err)
	}
	defer closeClient(t, c)
	beta := c.Bool("beta", false)
	if e := c.Explain("beta"); !beta.Get() || e.DecidedBy != "local override" || c.Status().OverriddenBy != path {
		t.Errorf("explained as %+v; status %+v", e, c.Status())
	}
	events := c.Events(t.Context())
	if err := os.WriteFile(path, []byte(`{"flags":{"beta":false}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-events:
		if e.View == nil || !e.View.Replaced || beta.Get() {
			t.Errorf("the file was changed, told as %+v; beta is %v", e, beta.Get())
		}
	case <-time.After(20 * time.Second):
		t.Error("nobody looks at the file")
	}
}
