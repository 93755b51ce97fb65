package facade

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/pki"
	evaluationv2 "github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v2"
	"github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v2/evaluationv2connect"
	syncv1 "github.com/holdfast-dev/holdfast/proto/flagd/sync/v1"
)

const (
	token    = "correct-horse-battery"
	oldToken = "staple-of-last-year!"
)

func TestTokens(t *testing.T) {
	r := newReplica(t)
	r.set("f", on)
	s := serve(t, r, Config{Tokens: []string{token, oldToken}})
	for _, c := range []struct {
		header, value string
		fine          bool
	}{
		{"X", "y", false},
		{"Authorization", "Bearer " + token, true},
		{"Authorization", "bearer " + oldToken, true},
		{"X-API-Key", token, true},
		{"X-API-Key", token + "x", false},
		{"Authorization", "Bearer ", false},
		{"Authorization", "Basic " + token, false},
	} {
		for _, path := range []string{pathEvaluate, pathEvaluate + "/f"} {
			got := s.ask("POST", path, "{}", "Content-Type", "application/json", c.header, c.value)
			if c.fine != (got.status == http.StatusOK) || !c.fine && (got.status != http.StatusUnauthorized || got.header.Get("WWW-Authenticate") != "Bearer") {
				t.Errorf("%+v: %s: %v", c, path, got)
			}
		}
		// Connect's own form of a refusal.
		got := s.ask("POST", evaluationv2connect.ServiceResolveBooleanProcedure, `{"flagKey":"f"}`, "Content-Type", "application/json", c.header, c.value)
		if c.fine != (got.status == http.StatusOK) || !c.fine && !strings.Contains(got.body, `"code":"unauthenticated"`) {
			t.Errorf("%+v: %v", c, got)
		}
		ctx := metadata.AppendToOutgoingContext(within(t), strings.ToLower(c.header), c.value)
		want := codes.Unauthenticated
		if c.fine {
			want = codes.OK
		}
		if _, err := evaluationv2.NewServiceClient(s.h2c).ResolveBoolean(ctx, &evaluationv2.ResolveBooleanRequest{FlagKey: "f"}); status.Code(err) != want {
			t.Errorf("%+v: %v", c, err)
		}
		stream, err := syncv1.NewFlagSyncServiceClient(s.h2c).SyncFlags(ctx, &syncv1.SyncFlagsRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != want {
			t.Errorf("%+v: sync: %v", c, err)
		}
	}
	// The gRPC port has certificates instead.
	if _, err := evaluationv2.NewServiceClient(s.conn).ResolveBoolean(within(t), &evaluationv2.ResolveBooleanRequest{FlagKey: "f"}); err != nil {
		t.Error(err)
	}
}

// TestTicket opens a stream of events as a browser does: with the address that it
// was given, and no header.
func TestTicket(t *testing.T) {
	s := serve(t, newReplica(t), Config{Tokens: []string{token}})
	var bulk struct {
		EventStreams []struct{ Endpoint struct{ RequestURI string } }
	}
	got := s.ask("POST", pathEvaluate, "", "X-API-Key", token, selectorHeader, "flagSetId=a")
	if err := json.Unmarshal([]byte(got.body), &bulk); err != nil || len(bulk.EventStreams) != 1 || strings.Contains(got.body, token) {
		t.Fatalf("%v", got)
	}
	_, query, _ := strings.Cut(bulk.EventStreams[0].Endpoint.RequestURI, "?")
	if e := s.events("?" + query); e.StatusCode != http.StatusOK || !strings.HasPrefix(e.next(), "id: ") {
		t.Errorf("%v", e.Response)
	}
	for what, path := range map[string]string{
		"another selector": pathEvents + "?" + strings.Replace(query, "flagSetId%3Da", "flagSetId%3Db", 1),
		"no ticket":        pathEvents + "?selector=flagSetId%3Da",
		"another ticket":   pathEvents + "?" + strings.Replace(query, "ticket=", "ticket=x", 1),
	} {
		if got := s.ask("GET", path, ""); got.status != http.StatusUnauthorized {
			t.Errorf("%s: %v", what, got)
		}
	}
	if got := s.ask("POST", pathEvaluate+"?"+query, ""); got.status != http.StatusUnauthorized {
		t.Errorf("a ticket evaluates: %v", got)
	}
}

func TestCORS(t *testing.T) {
	const page = "https://shop.example.com"
	for _, c := range []struct {
		origins []string
		origin  string
		allowed string
		vary    string
	}{
		{nil, page, "", ""},
		{[]string{page}, page, page, "Origin"},
		{[]string{"http://a", page}, page, page, "Origin"},
		{[]string{page}, "https://evil.example.com", "", "Origin"},
		{[]string{page}, "", "", "Origin"},
		{[]string{"*"}, page, "*", ""},
	} {
		r := newReplica(t)
		r.set("f", on)
		s := serve(t, r, Config{Origins: c.origins, Tokens: []string{token}})
		var origin []string
		if c.origin != "" {
			origin = []string{"Origin", c.origin}
		}
		// A browser asks beforehand, without a token.
		before := s.ask("OPTIONS", pathEvaluate, "", append(origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type,if-none-match,x-api-key")...)
		if before.status != http.StatusNoContent || before.header.Get("Access-Control-Allow-Origin") != c.allowed || before.header.Get("Vary") != c.vary {
			t.Errorf("%+v: before: %v", c, before)
		}
		lists := strings.ToLower(before.header.Get("Access-Control-Allow-Headers"))
		for _, name := range []string{"content-type", "if-none-match", "x-api-key", "authorization", "connect-protocol-version", "x-grpc-web", "flagd-selector", "last-event-id"} {
			if strings.Contains(lists, name) != (c.allowed != "") {
				t.Errorf("%+v: %s in %s", c, name, lists)
			}
		}
		for path, body := range map[string]string{pathEvaluate: "{}", evaluationv2connect.ServiceResolveBooleanProcedure: `{"flagKey":"f"}`} {
			got := s.ask("POST", path, body, append(origin, "Content-Type", "application/json", "X-API-Key", token)...)
			if got.status != http.StatusOK || got.header.Get("Access-Control-Allow-Origin") != c.allowed ||
				strings.Contains(got.header.Get("Access-Control-Expose-Headers"), "ETag") != (c.allowed != "") {
				t.Errorf("%+v: %s: %v", c, path, got)
			}
		}
		// A page can tell a refusal from a failure of the network.
		if got := s.ask("POST", pathEvaluate, "", origin...); got.status != http.StatusUnauthorized || got.header.Get("Access-Control-Allow-Origin") != c.allowed {
			t.Errorf("%+v: %v", c, got)
		}
		s.api.Close()
		s.Close()
	}
}

func TestCheckOrigin(t *testing.T) {
	for origin, fine := range map[string]bool{
		"*": true, "https://a.example.com": true, "http://localhost:5173": true, "http://[::1]:80": true,
		"": false, "a.example.com": false, "https://a.example.com/": false, "https://a.example.com/x": false, "https://*.example.com/": false, "null": false,
	} {
		if err := CheckOrigin(origin); (err == nil) != fine {
			t.Errorf("%q: %v", origin, err)
		}
	}
}

func TestReadTokens(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	long := strings.Repeat("x", minTokenBytes)
	for _, c := range []struct {
		text string
		n    int
		err  string
	}{
		{"# comment\n\n" + long + "\n  " + long + "y \n", 2, ""},
		{strings.Repeat(long+"\n", maxTokens), maxTokens, ""},
		{strings.Repeat(long+"\n", maxTokens+1), 0, "has 9 tokens; must be 1 to 8"},
		{long + "\n" + long[1:], 0, ":2: has 15 bytes; a token has at least 16"},
		{"# nothing\n", 0, "has 0 tokens"},
		{long + " " + long, 0, ":1: has white space"},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		tokens, err := ReadTokens(file)
		if len(tokens) != c.n || (err == nil) != (c.err == "") || err != nil && (!strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), long)) {
			t.Errorf("%q: %q %v", c.text, tokens, err)
		}
	}
	if _, err := ReadTokens(file + "x"); err == nil {
		t.Error("no file is fine")
	}
}

// TestTLS has the certificate of the server and asks for none.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca, err := pki.CreateCA(pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := pki.CreateCert(ca, pki.Options{Role: pki.RoleServer, Name: "n", Hosts: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := ca.Save(at("ca.pem"), at("ca.key")); err != nil {
		t.Fatal(err)
	}
	if err := pair.Save(at("n.pem"), at("n.key")); err != nil {
		t.Fatal(err)
	}
	config, err := pki.ServerConfig(at("ca.pem"), at("n.pem"), at("n.key"))
	if err != nil {
		t.Fatal(err)
	}
	config.ClientAuth, config.VerifyConnection = tls.NoClientCert, nil
	r := newReplica(t)
	r.set("f", on)
	s := serve(t, r, Config{TLS: config})
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: poolOf(t, at("ca.pem"))}, ForceAttemptHTTP2: protocol == "HTTP/2.0"}
		client := &http.Client{Transport: transport}
		resp, err := client.Post("https://"+s.addr+pathEvaluate+"/f", "application/json", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || resp.Proto != protocol {
			t.Errorf("%s: %v", protocol, resp)
		}
		transport.CloseIdleConnections()
	}
}
