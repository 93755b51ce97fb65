package node

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/holdfast-dev/holdfast/internal/pki"
	evaluationv2 "github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v2"
	syncv1 "github.com/holdfast-dev/holdfast/proto/flagd/sync/v1"
)

func TestFlagsAddr(t *testing.T) {
	t.Parallel()
	keys := writeFile(t, base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n")
	tls := []string{"--tls-ca=a", "--tls-cert=b", "--tls-key=c", "--gossip-key-file=" + keys, "--advertise=h"}
	for _, c := range []struct {
		args []string
		want string // the address, or what is wrong
	}{
		{nil, "127.0.0.1:7404"},
		{[]string{"--port-base=8000"}, "127.0.0.1:8004"},
		{[]string{"--port-base=0"}, "127.0.0.1:0"},
		{[]string{"--flags-addr=off"}, "off"},
		// Beyond loopback: only who has to show a token, or by express wish.
		{append(tls, "--bind=0.0.0.0"), "127.0.0.1:7404"},
		{append(tls, "--bind=0.0.0.0", "--flags-token-file=t"), "0.0.0.0:7404"},
		{append(tls, "--bind=0.0.0.0", "--flags-addr=0.0.0.0:9"), "0.0.0.0:9"},
		{[]string{"--bind=0.0.0.0", "--advertise=h", "--insecure"}, "0.0.0.0:7404"},
		{[]string{"--flags-addr=0.0.0.0:9"}, "would be plaintext beyond loopback"},
		{[]string{"--flags-addr=nonsense"}, "must be host:port"},
		{[]string{"--dev", "--flags-addr=10.0.0.1:1"}, "--dev serves loopback only"},
		{[]string{"--flags-cors-origins=shop.example.com"}, "flags-cors-origins \"shop.example.com\": must be * or scheme://host"},
	} {
		s, err := Load(c.args, nil)
		switch {
		case err != nil && !strings.Contains(err.Error(), c.want):
			t.Errorf("%v: %v, want %s", c.args, err, c.want)
		case err == nil && s.Config.FlagsAddr != c.want:
			t.Errorf("%v: %s, want %s", c.args, s.Config.FlagsAddr, c.want)
		}
	}
}

// TestFlagsAreServedWithoutQuorum writes a flag and then leaves one server alone:
// it goes on answering, and streams stay open.
func TestFlagsAreServedWithoutQuorum(t *testing.T) {
	t.Parallel()
	sites := newSites(t, 3, 3)
	startAll(t, sites)
	until(t, 30*time.Second, "cluster", formed(sites, 3))
	revision := put(t, sites[0].APIAddr(), "first", 0)
	last := sites[2]
	until(t, 10*time.Second, "applied", func() bool { return last.View().Revision() >= revision })
	var streams []grpc.ServerStreamingClient[syncv1.SyncFlagsResponse]
	for _, addr := range []string{last.APIAddr(), last.FlagsAddr()} {
		conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		stream, err := syncv1.NewFlagSyncServiceClient(conn).SyncFlags(t.Context(), &syncv1.SyncFlagsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if first, err := stream.Recv(); err != nil || !strings.Contains(first.GetFlagConfiguration(), `"first"`) {
			t.Fatalf("%s: %v %v", addr, first, err)
		}
		streams = append(streams, stream)
	}
	revision = put(t, sites[0].APIAddr(), "second", 0)
	for _, stream := range streams {
		if next, err := stream.Recv(); err != nil || !strings.Contains(next.GetFlagConfiguration(), `"second"`) {
			t.Fatalf("%v %v", next, err)
		}
	}
	sites[0].stop(t)
	sites[1].stop(t)
	until(t, 20*time.Second, "no leader", func() bool { id, _ := last.Leader(); return id == "" })
	conn, err := grpc.NewClient("passthrough:///"+last.FlagsAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got, err := evaluationv2.NewServiceClient(conn).ResolveBoolean(t.Context(), &evaluationv2.ResolveBooleanRequest{FlagKey: "second"})
	if err != nil || got.GetVariant() != "off" {
		t.Errorf("without quorum: %v %v", got, err)
	}
	if code, body := post(t, http.DefaultClient, "http://"+last.FlagsAddr()+"/ofrep/v1/evaluate/flags/first"); code != http.StatusOK {
		t.Errorf("without quorum: %d %s", code, body)
	}
	ended := make(chan error, len(streams))
	for _, stream := range streams {
		go func() {
			_, err := stream.Recv()
			ended <- err
		}()
	}
	select {
	case err := <-ended:
		t.Errorf("a stream ended with the leader: %v", err)
	default:
	}
	last.stop(t)
	for range streams {
		if err := <-ended; err == nil {
			t.Error("a stream outlives its server")
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func post(t *testing.T, client *http.Client, url string, headers ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestFlagsNeedATokenNotACertificate is about a server with certificates: clients
// of flags have none, and show a token.
func TestFlagsNeedATokenNotACertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, err := pki.CreateCA(pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.Save(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	const token = "correct-horse-battery"
	tokens := writeFile(t, "# the shop's\n"+token+"\n")
	s := &site{args: append(certificates(t, ca, dir, pki.RoleServer),
		"--data-dir="+t.TempDir(), "--port-base=0", "--drain-jitter=0s", "--flags-token-file="+tokens)}
	s.start(t)
	until(t, 20*time.Second, "serving", func() bool { return s.Serving() == nil })
	pem, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	url := "https://" + s.FlagsAddr() + "/ofrep/v1/evaluate/flags"
	if code, body := post(t, client, url); code != http.StatusUnauthorized {
		t.Errorf("without a token: %d %s", code, body)
	}
	if code, body := post(t, client, url, "Authorization", "Bearer "+token); code != http.StatusOK {
		t.Errorf("with a token: %d %s", code, body)
	}
}

// TestFlagsOff serves them on the gRPC port only.
func TestFlagsOff(t *testing.T) {
	t.Parallel()
	s := &site{args: []string{"--data-dir=" + t.TempDir(), "--port-base=0", "--drain-jitter=0s", "--flags-addr=off"}}
	s.start(t)
	until(t, 20*time.Second, "serving", func() bool { return s.Serving() == nil })
	put(t, s.APIAddr(), "f", 0)
	conn, err := grpc.NewClient("passthrough:///"+s.APIAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got, err := evaluationv2.NewServiceClient(conn).ResolveBoolean(t.Context(), &evaluationv2.ResolveBooleanRequest{FlagKey: "f"})
	if err != nil || got.GetVariant() != "off" || s.FlagsAddr() != "" {
		t.Errorf("%v %v, flags at %q", got, err, s.FlagsAddr())
	}
}
