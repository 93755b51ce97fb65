package api

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/consensus"
	"github.com/holdfast-dev/holdfast/internal/state"
	"github.com/holdfast-dev/holdfast/internal/watch"
)

// pinned is the contract with clients. A line may be added; none may change.
var pinned = map[string]string{
	"INVALID_REQUEST":        "InvalidArgument definite",
	"INVALID_PAGE_TOKEN":     "InvalidArgument definite",
	"UNAUTHENTICATED":        "Unauthenticated definite",
	"PERMISSION_DENIED":      "PermissionDenied definite",
	"NOT_FOUND":              "NotFound definite",
	"CANCELLED":              "Canceled definite",
	"DEADLINE_EXCEEDED":      "DeadlineExceeded definite",
	"REVISION_MISMATCH":      "FailedPrecondition definite",
	"REQUEST_TOO_OLD":        "FailedPrecondition unknown",
	"REQUEST_ID_REUSED":      "InvalidArgument definite",
	"INVALID_COMMAND":        "InvalidArgument definite",
	"COMMAND_TOO_LARGE":      "InvalidArgument definite",
	"STATE_FULL":             "ResourceExhausted definite",
	"TOO_MANY_RESOURCES":     "ResourceExhausted definite",
	"TOO_MANY_OVERRIDES":     "ResourceExhausted definite",
	"TOO_MANY_NAMESPACES":    "ResourceExhausted definite",
	"NO_LEADER":              "Unavailable definite",
	"NOT_LEADER":             "Unavailable definite",
	"UNAVAILABLE":            "Unavailable definite",
	"UNKNOWN_OUTCOME":        "Unavailable unknown",
	"BEHIND":                 "Unavailable definite",
	"STALE":                  "Unavailable definite",
	"FENCED":                 "Unavailable definite",
	"NOT_SERVING":            "Unavailable definite",
	"DRAINING":               "Unavailable definite",
	"TOO_MANY_WATCHES":       "ResourceExhausted definite",
	"TOO_MANY_SESSIONS":      "ResourceExhausted definite",
	"INSTANCE_REPLACED":      "AlreadyExists definite",
	"TOO_MANY_WAITS":         "ResourceExhausted definite",
	"FOREIGN_LINEAGE":        "FailedPrecondition definite",
	"FORKED_EPOCH":           "FailedPrecondition definite",
	"TOO_MANY_BACKUPS":       "ResourceExhausted definite",
	"TOO_MANY_RESTORES":      "ResourceExhausted definite",
	"BACKUP_INVALID":         "InvalidArgument definite",
	"BACKUP_TOO_LARGE":       "ResourceExhausted definite",
	"RESTORE_BUSY":           "Aborted definite",
	"RESTORE_UNKNOWN":        "Aborted definite",
	"RESTORE_TOO_LARGE":      "ResourceExhausted definite",
	"RESTORE_OUT_OF_ORDER":   "Aborted definite",
	"RESTORE_INCOMPLETE":     "Aborted definite",
	"RESTORE_CORRUPT":        "InvalidArgument definite",
	"RESTORE_UNKNOWN_FORMAT": "InvalidArgument definite",
	"MEMBER_NOT_FOUND":       "NotFound definite",
	"MEMBER_BEHIND":          "FailedPrecondition definite",
	"MEMBERSHIP_REFUSED":     "FailedPrecondition definite",
	"NO_GOSSIP":              "FailedPrecondition definite",
	"GOSSIP_KEY_NOT_FOUND":   "NotFound definite",
	"GOSSIP_KEY_REFUSED":     "FailedPrecondition definite",
	"INTERNAL":               "Internal unknown",
}

func TestReasonsArePinned(t *testing.T) {
	got := make(map[string]string)
	for _, row := range Reasons() {
		if _, twice := got[row.Reason]; twice {
			t.Errorf("%s is in the table twice", row.Reason)
		}
		got[row.Reason] = row.Code.String() + " " + string(row.Outcome)
		if row.Meaning == "" {
			t.Errorf("%s has no meaning", row.Reason)
		}
		if row.RetryAfter > 0 && row.Code != codes.Unavailable && row.Code != codes.ResourceExhausted && row.Code != codes.Aborted && row.Code != codes.FailedPrecondition {
			t.Errorf("%s asks to retry what cannot succeed", row.Reason)
		}
	}
	if diff := cmp.Diff(pinned, got); diff != "" {
		t.Errorf("the contract changed (-pinned +now):\n%s", diff)
	}
}

// TestEveryReasonHasARow reads the constants of this package and of state, so
// that a new one cannot be forgotten.
func TestEveryReasonHasARow(t *testing.T) {
	for _, dir := range []string{".", "../state"} {
		found := 0
		for name, value := range reasonConstants(t, dir) {
			found++
			if _, ok := rowOf(value); !ok {
				t.Errorf("%s in %s has no row in the table", name, dir)
			}
		}
		if found == 0 {
			t.Errorf("no reasons found in %s", dir)
		}
	}
}

// reasonConstants returns the constants Reason… of a package.
func reasonConstants(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, source, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Names) != 1 || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Reason") {
				return true
			}
			if literal, ok := spec.Values[0].(*ast.BasicLit); ok && literal.Kind == token.STRING {
				value, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Fatal(err)
				}
				found[spec.Names[0].Name] = value
			}
			return true
		})
	}
	return found
}

func TestErrorsOfBelow(t *testing.T) {
	tests := map[string]struct {
		err    error
		reason string
	}{
		"not leader":        {fmt.Errorf("propose: %w", &consensus.NotLeaderError{ID: "n2"}), ReasonNotLeader},
		"unknown":           {fmt.Errorf("%w: %w", consensus.ErrUnknownOutcome, context.Canceled), ReasonUnknownOutcome},
		"unavailable":       {fmt.Errorf("%w: %w", consensus.ErrUnavailable, context.DeadlineExceeded), ReasonUnavailable},
		"not a member":      {fmt.Errorf("remove: %w", consensus.ErrNotMember), ReasonMemberNotFound},
		"not caught up":     {consensus.ErrNotCaughtUp, ReasonMemberBehind},
		"foreign":           {&watch.ForeignLineageError{}, ReasonForeignLineage},
		"forked":            {watch.ErrForkedEpoch, ReasonForkedEpoch},
		"cancelled":         {fmt.Errorf("wait: %w", context.Canceled), ReasonCancelled},
		"deadline":          {context.DeadlineExceeded, ReasonDeadlineExceeded},
		"rejection":         {&state.Rejection{Reason: state.ReasonStateFull, Step: -1}, state.ReasonStateFull},
		"anything":          {errors.New("boom"), ReasonInternal},
		"a reason unheard":  {Errorf("NEVER_HEARD", "x"), ReasonInternal},
		"its own, wrapped":  {fmt.Errorf("x: %w", Errorf(ReasonStale, "y")), ReasonStale},
		"a new rejection":   {&state.Rejection{Reason: "NEW_ONE", Step: -1}, ReasonInternal},
		"a status of ours":  {Errorf(ReasonBehind, "z").GRPCStatus().Err(), ReasonBehind},
		"an invalid string": {Errorf(ReasonNotFound, "\xff"), ReasonNotFound},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { expect(t, test.err, test.reason) })
	}
	if got := reasonOf(status.Error(codes.Unavailable, "connection reset")); got != "" {
		t.Errorf("a failure of gRPC has the reason %s", got)
	}
	if err := status.Error(codes.Unavailable, "connection reset"); outcomeOf(err) != Unknown {
		t.Error("a failure of gRPC counts as definite")
	}
	if info := infoOf(&consensus.NotLeaderError{ID: "n2"}); info.GetMetadata()[MetaLeader] != "n2" {
		t.Errorf("NOT_LEADER does not name the leader: %v", info)
	}
}

func TestRetryInfo(t *testing.T) {
	for _, row := range Reasons() {
		found := false
		for _, d := range Errorf(row.Reason, "x").GRPCStatus().Details() {
			if r, ok := d.(*errdetails.RetryInfo); ok {
				found = r.GetRetryDelay().AsDuration() == row.RetryAfter
			}
		}
		if found != (row.RetryAfter > 0) {
			t.Errorf("%s: RetryInfo = %v, want after %s", row.Reason, found, row.RetryAfter)
		}
	}
}
