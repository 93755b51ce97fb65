package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

func TestWriteIsRetriedWithOneRequestID(t *testing.T) {
	f := newFake(t)
	f.onApply = func(n int, req *holdfastv1.ApplyRequest) (*holdfastv1.ApplyResponse, error) {
		switch n {
		case 1:
			return nil, reasoned(codes.Unavailable, "UNKNOWN_OUTCOME", "unknown", "the leader changed")
		case 2:
			return nil, status.Error(codes.Unavailable, "transport is closing")
		case 3:
			return nil, reasoned(codes.Unavailable, "NO_LEADER", "definite", "no leader is known")
		default:
			return f.accept(req), nil
		}
	}
	got := run(inTime(t), t, terminal{}, "", nil, setMode(unavailable(t)+","+f.addr)...)
	got.want(t, exitOK, "storefront is read-only for 30m", "the leader changed (UNKNOWN_OUTCOME); trying again")
	if len(f.applied) != 4 {
		t.Fatalf("%d attempts", len(f.applied))
	}
	for i, req := range f.applied {
		if len(req.GetRequestId()) != 16 || string(req.GetRequestId()) != string(f.applied[0].GetRequestId()) {
			t.Errorf("attempt %d has request id %x, the first %x", i, req.GetRequestId(), f.applied[0].GetRequestId())
		}
		if i > 0 && req.GetAge().AsDuration() <= f.applied[i-1].GetAge().AsDuration() {
			t.Errorf("attempt %d has age %v after %v", i, req.GetAge().AsDuration(), f.applied[i-1].GetAge().AsDuration())
		}
	}
}

func TestFirstAttemptHasNoAge(t *testing.T) {
	f := newFake(t)
	run(inTime(t), t, terminal{}, "", map[string]string{"USER": "alice"}, setMode(f.addr)...).want(t, exitOK, "read-only")
	req := f.applied[0]
	if req.GetAge() != nil || req.GetReason() != "db failover" || !strings.HasPrefix(req.GetClaimedActor(), "alice@") {
		t.Errorf("%v", req)
	}
	put := req.GetOperations()[0].GetPut()
	if put.GetTtl().AsDuration().Minutes() != 30 || string(put.GetSpec()) != `{"mode":"storefront","level":"read-only"}` {
		t.Errorf("%v", put)
	}
}

func TestUnknownOutcomeIsTold(t *testing.T) {
	f := newFake(t)
	f.onApply = func(n int, _ *holdfastv1.ApplyRequest) (*holdfastv1.ApplyResponse, error) {
		if n == 1 {
			return nil, reasoned(codes.Unavailable, "UNKNOWN_OUTCOME", "unknown", "the leader changed")
		}
		// What is definite about a retry says nothing about the first attempt.
		return nil, reasoned(codes.Unavailable, "NO_LEADER", "definite", "no leader is known")
	}
	got := run(inTime(t), t, terminal{}, "", nil, setMode(f.addr, "--timeout", "400ms")...)
	got.want(t, exitUnavailable, "", "it is not known whether the change was made: no leader is known (NO_LEADER)",
		fmt.Sprintf("request id %x", f.applied[0].GetRequestId()), "holdfast audit")
}

func TestDefiniteFailureIsNotUnknown(t *testing.T) {
	f := newFake(t)
	f.onApply = func(int, *holdfastv1.ApplyRequest) (*holdfastv1.ApplyResponse, error) {
		return nil, reasoned(codes.Unavailable, "NO_LEADER", "definite", "no leader is known")
	}
	got := run(inTime(t), t, terminal{}, "", nil, setMode(f.addr, "--timeout", "400ms")...)
	got.want(t, exitUnavailable, "", "cannot set override/mode-storefront: no leader is known (NO_LEADER)", "fewer than a majority")
	if strings.Contains(got.errors, "not known whether") || len(f.applied) < 2 {
		t.Errorf("%d attempts\n%s", len(f.applied), got.errors)
	}
}

// TestNoAttemptThatCannotEnd has a server that takes most of the time to refuse:
// another attempt would be cut off and make a known outcome unknown.
func TestNoAttemptThatCannotEnd(t *testing.T) {
	f := newFake(t)
	f.onApply = func(int, *holdfastv1.ApplyRequest) (*holdfastv1.ApplyResponse, error) {
		<-time.After(leastAttempt)
		return nil, reasoned(codes.Unavailable, "NO_LEADER", "definite", "no leader is known")
	}
	got := run(inTime(t), t, terminal{}, "", nil, setMode(f.addr, "--timeout", "450ms")...)
	got.want(t, exitUnavailable, "", "cannot set override/mode-storefront: no leader is known (NO_LEADER)")
	if len(f.applied) != 1 {
		t.Errorf("%d attempts", len(f.applied))
	}
}

// TestRestoreWaitsForALeader restores into a cluster that has just started and
// elects.
func TestRestoreWaitsForALeader(t *testing.T) {
	backup := append([]byte(backupMagic), bytes.Repeat([]byte{7}, 2*backupPiece)...)
	sum := sha256.Sum256(backup)
	backup = append(backup, sum[:]...)
	name := filepath.Join(t.TempDir(), "monday.backup")
	if err := os.WriteFile(name, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	noLeader := reasoned(codes.Unavailable, "NO_LEADER", "definite", "no leader is known")
	for _, test := range []struct {
		name     string
		answers  []error
		attempts int
		exit     int
		say      string
	}{
		{"elected", []error{noLeader, reasoned(codes.Unavailable, "NOT_SERVING", "definite", "not yet"), nil}, 3, exitOK, "trying again"},
		{"never", []error{noLeader}, 0, exitUnavailable, "cannot restore: no leader is known (NO_LEADER)"},
		{"refused", []error{reasoned(codes.ResourceExhausted, "TOO_MANY_RESTORES", "definite", "another runs")}, 1, exitRefused, "TOO_MANY_RESTORES"},
		{"unknown", []error{noLeader, reasoned(codes.Unavailable, "UNKNOWN_OUTCOME", "unknown", "the leader changed")}, 2, exitUnavailable, "it is not known whether"},
		{"broken", []error{status.Error(codes.Unavailable, "transport is closing")}, 1, exitUnavailable, "it is not known whether"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			f.onRestore = func(n int) (*holdfastv1.RestoreResponse, error) {
				return &holdfastv1.RestoreResponse{Header: f.header()}, test.answers[min(n, len(test.answers))-1]
			}
			got := run(inTime(t), t, terminal{}, "", nil, "cluster", "restore", name, "--reason", "all disks lost", "--yes", "--addr", f.addr, "--timeout", "700ms")
			got.want(t, test.exit, "", test.say)
			if test.attempts > 0 && len(f.restored) != test.attempts || len(f.restored) == 0 {
				t.Errorf("%d attempts, want %d", len(f.restored), test.attempts)
			}
			for i, got := range f.restored {
				if !bytes.Equal(got, backup) {
					t.Errorf("attempt %d sent %d bytes that are not the backup of %d", i, len(got), len(backup))
				}
			}
		})
	}
}

func TestCtrlCDuringAWriteSaysWhatIsNotKnown(t *testing.T) {
	f := newFake(t)
	ctx, cancel := context.WithCancel(inTime(t))
	f.onApply = func(int, *holdfastv1.ApplyRequest) (*holdfastv1.ApplyResponse, error) {
		cancel()
		return nil, reasoned(codes.Unavailable, "UNKNOWN_OUTCOME", "unknown", "the leader changed")
	}
	run(ctx, t, terminal{}, "", nil, setMode(f.addr)...).want(t, exitInterrupted, "", "it is not known whether the change was made")
	if len(f.applied) != 1 {
		t.Errorf("%d attempts", len(f.applied))
	}
}

func TestRefusalsHaveTheirExitCodes(t *testing.T) {
	for _, test := range []struct {
		code   codes.Code
		reason string
		exit   int
		hint   string
	}{
		{codes.FailedPrecondition, "REVISION_MISMATCH", exitConflict, "look at it again"},
		{codes.FailedPrecondition, "REQUEST_TOO_OLD", exitConflict, "holdfast audit"},
		{codes.ResourceExhausted, "TOO_MANY_OVERRIDES", exitRefused, "holdfast override list"},
		{codes.PermissionDenied, "PERMISSION_DENIED", exitAuth, "operator role"},
		{codes.Unauthenticated, "UNAUTHENTICATED", exitAuth, "--tls-cert"},
		{codes.InvalidArgument, "INVALID_REQUEST", exitUsage, ""},
		{codes.Internal, "INTERNAL", exitError, ""},
		{codes.Unimplemented, "", exitError, "compare `holdfast version`"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			f := newFake(t)
			f.onApply = func(int, *holdfastv1.ApplyRequest) (*holdfastv1.ApplyResponse, error) {
				if test.reason == "" {
					return nil, status.Error(test.code, "what is that?")
				}
				return nil, reasoned(test.code, test.reason, "definite", "because")
			}
			got := run(inTime(t), t, terminal{}, "", nil, setMode(f.addr)...)
			got.want(t, test.exit, "", "Error: cannot set override/mode-storefront: ", test.hint)
			if len(f.applied) != 1 {
				t.Errorf("a refusal was tried %d times", len(f.applied))
			}
		})
	}
}

// notReached says that s3 cannot be asked.
func notReached(n int) (*holdfastv1.AwaitRevisionResponse, error) {
	return &holdfastv1.AwaitRevisionResponse{Servers: []*holdfastv1.ServerProgress{
		{ServerId: "s1", Revision: 7, Reached: true},
		{ServerId: "s2", Revision: 7, Reached: n > 1},
		{ServerId: "s3", Error: "connection refused"},
	}}, nil
}

func TestWaitNamesWhoIsMissing(t *testing.T) {
	f := newFake(t)
	f.onAwait = notReached
	got := run(inTime(t), t, terminal{}, "", nil, setMode(f.addr, "--wait", "--timeout", "600ms", "-o", "json")...)
	got.want(t, exitNotConverged, `"reached": false`, "the change is committed at revision 7, but 1 of 3 servers has not applied it within", "s3: connection refused")
	var v resultView
	if err := json.Unmarshal([]byte(got.out), &v); err != nil || len(v.Wait.Servers) != 3 || v.Created != 1 {
		t.Errorf("%v, %+v", err, v)
	}
}

func TestWaitShowsProgressOnATerminal(t *testing.T) {
	f := newFake(t)
	f.onAwait = func(n int) (*holdfastv1.AwaitRevisionResponse, error) {
		if n < 3 {
			return notReached(n)
		}
		return &holdfastv1.AwaitRevisionResponse{Reached: true, Servers: make([]*holdfastv1.ServerProgress, 3)}, nil
	}
	// On a terminal --wait is the default.
	got := run(inTime(t), t, terminal{out: true}, "", map[string]string{"NO_COLOR": "1"}, setMode(f.addr)...)
	got.want(t, exitOK, "storefront is read-only", "waiting for s2, s3: 1 of 3 servers have revision 7", "waiting for s3: 2 of 3", "all 3 servers have applied revision 7")
}

func TestCtrlCDuringWaitSaysThatTheChangeStays(t *testing.T) {
	f := newFake(t)
	ctx, cancel := context.WithCancel(inTime(t))
	f.onAwait = func(n int) (*holdfastv1.AwaitRevisionResponse, error) {
		if n == 2 {
			cancel()
		}
		return notReached(n)
	}
	run(ctx, t, terminal{}, "", nil, setMode(f.addr, "--wait")...).
		want(t, exitInterrupted, "storefront is read-only", "stopped waiting; the change stays: it is committed at revision 7")
}

func TestServersFaultsNameFilesAndLines(t *testing.T) {
	f := newFake(t)
	f.onApply = func(int, *holdfastv1.ApplyRequest) (*holdfastv1.ApplyResponse, error) {
		return nil, reasoned(codes.InvalidArgument, "INVALID_REQUEST", "definite", "2 problems", &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{
				{Field: "operations[1].put.spec.levels[1].name", Description: "is a bad word"},
				{Field: "reason", Description: "is too long"},
			},
		})
	}
	file := filepath.Join(t.TempDir(), "x.yaml")
	text := "kind: Flag\nname: a\nspec: {state: ENABLED, variants: {x: 1}}\n---\nkind: Mode\nname: m\nspec:\n  levels:\n    - name: a\n    - name: b\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(inTime(t), t, terminal{}, "", nil, "apply", "-f", file, "--addr", f.addr).
		want(t, exitUsage, "", "the servers refused 2 definitions", file+":10: mode/m: levels[1].name: is a bad word", "  reason: is too long")
}

func TestApplySaysHowFarItGot(t *testing.T) {
	f := newFake(t)
	f.onApply = func(_ int, req *holdfastv1.ApplyRequest) (*holdfastv1.ApplyResponse, error) {
		if name := req.GetOperations()[0].GetPut().GetKey().GetName(); name != "f0000" && !req.GetDryRun() {
			return nil, reasoned(codes.ResourceExhausted, "STATE_FULL", "definite", "the state is full")
		}
		return f.accept(req), nil
	}
	var b strings.Builder
	for i := range 1200 {
		fmt.Fprintf(&b, "---\nkind: Flag\nname: f%04d\nspec: {state: ENABLED, variants: {x: 1}}\n", i)
	}
	got := run(inTime(t), t, terminal{}, b.String(), nil, "apply", "-f", "-", "--addr", f.addr)
	got.want(t, exitRefused, "", "cannot apply: the state is full (STATE_FULL)",
		"transaction 2 of 3; the 500 changes before it are committed (revision 7)", "run the same command again")
	ids := map[string]bool{}
	for _, req := range f.applied {
		if len(req.GetOperations()) > maxTransactionSteps {
			t.Errorf("%d steps", len(req.GetOperations()))
		}
		ids[string(req.GetRequestId())] = true
	}
	if len(ids) != 5 { // three plans and two transactions
		t.Errorf("%d request ids", len(ids))
	}
}

func TestTransactionsAreBoundedInBytes(t *testing.T) {
	var manifests []*manifest
	for i := range 10 {
		m := &manifest{namespace: "default", spec: []byte(`"` + strings.Repeat("x", 100<<10) + `"`)}
		m.key.Kind, m.key.Name = 1, fmt.Sprint(i)
		manifests = append(manifests, m)
	}
	p := newPlan(manifests, nil, "", false)
	if len(p.batches) != 4 {
		t.Errorf("%d transactions of %d steps", len(p.batches), len(p.steps))
	}
}

func TestQuestionsOnATerminal(t *testing.T) {
	set := func(addr string, more ...string) []string {
		return append([]string{"mode", "set", "storefront", "offline", "--for", "1h", "--wait=false", "--addr", addr}, more...)
	}
	t.Run("reason", func(t *testing.T) {
		f := newFake(t)
		run(inTime(t), t, terminal{in: true}, "x\ndb failover\n", nil, set(f.addr)...).want(t, exitOK, "offline", "Reason (for the audit): Reason")
		if got := f.applied[0].GetReason(); got != "db failover" {
			t.Errorf("reason %q", got)
		}
	})
	t.Run("no answer", func(t *testing.T) {
		f := newFake(t)
		run(inTime(t), t, terminal{in: true}, "", nil, set(f.addr)...).want(t, exitUsage, "", "--reason is missing")
	})
	t.Run("no input", func(t *testing.T) {
		f := newFake(t)
		got := run(inTime(t), t, terminal{in: true}, "why\n", nil, set(f.addr, "--no-input")...)
		got.want(t, exitUsage, "", "--reason is missing")
		if strings.Contains(got.errors, "(for the audit)") {
			t.Error("it asked")
		}
	})
	for answer, code := range map[string]int{"y\n": exitOK, "yes\n": exitOK, "n\n": exitError, "\n": exitError, "": exitError, "Y es\n": exitError} {
		t.Run("confirm "+answer, func(t *testing.T) {
			f := newFake(t)
			run(inTime(t), t, terminal{in: true}, answer, nil, "mode", "delete", "storefront", "--addr", f.addr).want(t, code, "", "Delete mode storefront? [y/N] ")
			if (len(f.applied) == 1) != (code == exitOK) {
				t.Errorf("%d writes", len(f.applied))
			}
			if code == exitOK && f.applied[0].GetOperations()[0].GetExpectedRevision() != 1 {
				t.Error("it deletes whatever is there, not what was shown")
			}
		})
	}
}

func TestColoursOnATerminalOnly(t *testing.T) {
	f := newFake(t)
	f.onAwait = func(int) (*holdfastv1.AwaitRevisionResponse, error) {
		return &holdfastv1.AwaitRevisionResponse{Reached: true}, nil
	}
	list := []string{"mode", "list", "--addr", f.addr}
	for name, test := range map[string]struct {
		tty  terminal
		env  map[string]string
		args []string
		want bool
	}{
		"terminal":   {terminal{out: true}, nil, list, true},
		"pipe":       {terminal{}, nil, list, false},
		"NO_COLOR":   {terminal{out: true}, map[string]string{"NO_COLOR": "1"}, list, false},
		"TERM=dumb":  {terminal{out: true}, map[string]string{"TERM": "dumb"}, list, false},
		"--no-color": {terminal{out: true}, nil, append(list, "--no-color"), false},
	} {
		got := run(inTime(t), t, test.tty, "", test.env, test.args...)
		if coloured := strings.Contains(got.out, "\x1b["); coloured != test.want || got.code != exitOK {
			t.Errorf("%s: exit code %d, %q", name, got.code, got.out)
		}
	}
}

func TestMembership(t *testing.T) {
	f := newFake(t)
	addr := []string{"--addr", f.addr}
	cmd := func(args ...string) ran { return run(inTime(t), t, terminal{}, "", nil, append(args, addr...)...) }
	cmd("cluster", "promote", "alpha2").want(t, exitOK, "alpha2 is a voter")
	cmd("cluster", "promote", "alpha").want(t, exitUsage, "", `"alpha" is the beginning of 2 servers`, "alpha1, alpha2, beta")
	cmd("cluster", "transfer", "be").want(t, exitOK, "the leader is beta")
	cmd("cluster", "transfer").want(t, exitOK, "the leader is not known yet")
	cmd("cluster", "remove", "beta").want(t, exitUsage, "", "refusing to remove server beta (follower, 10.0.0.3:7402, dead) for good without --yes")
	cmd("cluster", "remove", "beta", "--yes").want(t, exitRefused, "", "1 of 2 remaining voters is alive (MEMBERSHIP_REFUSED)")
	cmd("cluster", "remove", "beta", "--yes", "--force").want(t, exitOK, "beta is removed")
	if len(f.removed) != 2 {
		t.Errorf("%d removals sent", len(f.removed))
	}
	cmd("cluster", "status").want(t, exitOK, "Servers", "Warning: server s1 is fenced off: its root differs", "no leader is known", "server beta (10.0.0.3:7402) is not alive")
	cmd("cluster", "status", "--check").want(t, exitError, "", "the cluster is not well")
}

func TestMembersOfAServerWithoutACluster(t *testing.T) {
	f := newFake(t)
	f.alone = true
	got := run(inTime(t), t, terminal{}, "", nil, "cluster", "members", "--addr", f.addr)
	got.want(t, exitOK, "", "waiting for a cluster: ")
	if got.out != "" {
		t.Errorf("stdout:\n%s", got.out)
	}
	got = run(inTime(t), t, terminal{}, "", nil, "cluster", "members", "--addr", f.addr, "-o", "json")
	got.want(t, exitOK, `"items": []`, "waiting for a cluster: ")
}

func TestQuietCheckPrintsOnlyWhatIsWrong(t *testing.T) {
	f := newFake(t)
	got := run(inTime(t), t, terminal{}, "", nil, "cluster", "status", "--check", "-q", "--addr", f.addr)
	got.want(t, exitError, "", "the cluster is not well", "server s1 is fenced off: its root differs")
	if got.out != "" {
		t.Errorf("stdout:\n%s", got.out)
	}
}
