package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/consensus"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// override returns an operation that puts an override.
func override(name string, ttl time.Duration) *holdfastv1.Operation {
	op := flag(name, `{}`)
	op.GetPut().Key.Kind = holdfastv1.Kind_KIND_OVERRIDE
	if ttl != 0 {
		op.GetPut().Ttl = durationpb.New(ttl)
	}
	return op
}

// violationsOf returns the field violations of a failure as "field: description".
func violationsOf(err error) []string {
	var list []string
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				list = append(list, v.GetField()+": "+v.GetDescription())
			}
		}
	}
	return list
}

func TestApplyAnswersWithWhatItDid(t *testing.T) {
	n := single(t)
	resp := n.put(t, flag("b", ` { "z" : 1, "a":2 } `), flag("a", `1`))
	if resp.GetRevision() != 1 || resp.GetDuplicate() || resp.GetHeader().GetRevision() != 1 || resp.GetHeader().GetServerId() != "n1" {
		t.Fatalf("Apply = %v", resp)
	}
	if got := resp.GetChanges(); len(got) != 2 || got[0].GetKey().GetName() != "b" || got[0].GetKey().GetNamespace() != "default" ||
		got[0].GetType() != holdfastv1.ChangeType_CHANGE_TYPE_CREATED {
		t.Fatalf("changes = %v", got)
	}
	got, err := n.state.Get(t.Context(), &holdfastv1.GetRequest{Key: &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_FLAG, Name: "b"}})
	if err != nil {
		t.Fatal(err)
	}
	r := got.GetResource()
	if string(r.GetSpec()) != `{"a":2,"z":1}` || r.GetActor().GetName() != "alice" || r.GetActor().GetVerified() || r.GetModRevision() != 1 {
		t.Fatalf("Get = %v", r)
	}
	// The same again changes nothing; a deletion of nothing is said to be one.
	resp = n.put(t, flag("a", `1`), remove("nothing"))
	if resp.GetRevision() != 1 || resp.GetChanges()[0].GetType() != holdfastv1.ChangeType_CHANGE_TYPE_UNCHANGED ||
		resp.GetChanges()[1].GetType() != holdfastv1.ChangeType_CHANGE_TYPE_ABSENT {
		t.Fatalf("Apply of nothing new = %v", resp)
	}
}

func TestApplyIsAppliedOnce(t *testing.T) {
	n := single(t)
	req := transactionOf(flag("a", `1`))
	first, err := n.state.Apply(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	n.put(t, flag("a", `2`))
	req.Age = durationpb.New(time.Second)
	again, err := n.state.Apply(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if !again.GetDuplicate() || again.GetRevision() != first.GetRevision() || again.GetHeader().GetRevision() != 2 {
		t.Fatalf("retry = %v", again)
	}
	req.Operations = []*holdfastv1.Operation{flag("a", `3`)}
	_, err = n.state.Apply(t.Context(), req)
	expect(t, err, state.ReasonRequestIDReused)
}

func TestApplyRefusesAWrongRevision(t *testing.T) {
	n := single(t)
	n.put(t, flag("a", `1`))
	n.put(t, flag("a", `2`))
	op := flag("a", `3`)
	op.ExpectedRevision = proto.Uint64(1)
	_, err := n.state.Apply(t.Context(), transactionOf(flag("b", `1`), op))
	expect(t, err, state.ReasonRevisionMismatch)
	if infoOf(err).GetMetadata()[MetaActualRevision] != "2" {
		t.Errorf("metadata = %v", infoOf(err).GetMetadata())
	}
	st := status.Convert(err)
	if st.Code() != codes.FailedPrecondition || !strings.HasPrefix(st.Message(), "operations[1]: ") {
		t.Errorf("status = %v", st)
	}
	found := false
	for _, d := range st.Details() {
		if p, ok := d.(*errdetails.PreconditionFailure); ok {
			found = p.GetViolations()[0].GetSubject() == "default/flag/a"
		}
	}
	if !found {
		t.Errorf("no PreconditionFailure names the resource: %v", st.Details())
	}
}

func TestApplyNamesEverythingThatIsWrong(t *testing.T) {
	n := single(t)
	wrongKind := flag("k", `1`)
	wrongKind.GetPut().Key.Kind = 9
	labelled := flag("l", `1`)
	labelled.GetPut().Labels = map[string]string{strings.Repeat("k", MaxLabelKeyBytes+1): "v", "ok": "\x1b[2J"}
	timed := flag("t", `1`)
	timed.GetPut().Ttl = durationpb.New(time.Hour)
	_, err := n.state.Apply(t.Context(), &holdfastv1.ApplyRequest{
		RequestId: []byte("short"),
		Age:       durationpb.New(-1),
		Operations: []*holdfastv1.Operation{
			flag("", `{`),
			{},
			wrongKind, labelled, timed, override("o", 0), override("p", time.Millisecond),
			override("q", MaxTTL+1), flag("dup", `1`), remove("dup"), flag("bad", `"bad"`),
			{Action: &holdfastv1.Operation_Delete{Delete: &holdfastv1.Delete{}}},
		},
		ClaimedActor: "al\nice\x00",
	})
	expect(t, err, ReasonInvalidRequest)
	if n.replica.cluster.proposals() != 1 { // the epoch
		t.Error("a request that was refused was proposed")
	}
	got := violationsOf(err)
	want := []string{
		"request_id: has 5 bytes", "age: is negative", "claimed_actor: holds the unprintable character U+0000 at byte 6",
		"operations[0].put.key.name: name is empty", "operations[0].put.spec: ", "operations[1]: does nothing",
		"operations[2].put.key.kind: is 9", "operations[3].put.labels: the key", `operations[3].put.labels["ok"]: holds the unprintable character U+001B`,
		"operations[4].put.ttl: is only for overrides", "operations[5].put.ttl: is required", "reason: is required, because operations[5].put puts an override",
		"operations[6].put.ttl: is 1ms; it must be between 1s and 720h0m0s", "operations[7].put.ttl: is 720h0m0.000000001s",
		"operations[9].delete.key: is the same resource as that of operations[8]",
		"operations[10].put.spec: variants: is missing", "operations[10].put.spec: is bad", "operations[11].delete.key: is not set",
	}
	for _, w := range want {
		if !slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, w) }) {
			t.Errorf("no violation %q in\n%s", w, strings.Join(got, "\n"))
		}
	}
}

func TestApplyLimits(t *testing.T) {
	n := single(t)
	many := make([]*holdfastv1.Operation, MaxOperations+1)
	for i, name := range names(len(many)) {
		many[i] = flag(name, `1`)
	}
	labels := make(map[string]string)
	for _, name := range names(MaxLabels + 1) {
		labels[name] = ""
	}
	labelled := flag("l", `1`)
	labelled.GetPut().Labels = labels
	big := func(size int) *holdfastv1.Operation { return flag("big", `"`+strings.Repeat("x", size)+`"`) }
	tests := map[string]struct {
		change func(*holdfastv1.ApplyRequest)
		field  string
	}{
		"no operation":        {func(r *holdfastv1.ApplyRequest) { r.Operations = nil }, "operations"},
		"too many operations": {func(r *holdfastv1.ApplyRequest) { r.Operations = many }, "operations"},
		"too many bytes":      {func(r *holdfastv1.ApplyRequest) { r.Operations = []*holdfastv1.Operation{big(MaxCommandBytes)} }, "operations"},
		"too many labels":     {func(r *holdfastv1.ApplyRequest) { r.Operations = []*holdfastv1.Operation{labelled} }, "operations[0].put.labels"},
		"long reason":         {func(r *holdfastv1.ApplyRequest) { r.Reason = strings.Repeat("x", MaxReasonBytes+1) }, "reason"},
		"long actor":          {func(r *holdfastv1.ApplyRequest) { r.ClaimedActor = strings.Repeat("x", MaxActorBytes+1) }, "claimed_actor"},
		"long name": {func(r *holdfastv1.ApplyRequest) {
			r.Operations = []*holdfastv1.Operation{flag(strings.Repeat("x", document.MaxName+1), `1`)}
		}, "operations[0].put.key.name"},
		"no request id": {func(r *holdfastv1.ApplyRequest) { r.RequestId = nil }, "request_id"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			req := transactionOf(flag("a", `1`))
			test.change(req)
			_, err := n.state.Apply(t.Context(), req)
			expect(t, err, ReasonInvalidRequest)
			if got := violationsOf(err); len(got) != 1 || !strings.HasPrefix(got[0], test.field+": ") {
				t.Errorf("violations = %q, want one of %s", got, test.field)
			}
		})
	}
	t.Run("just fits", func(t *testing.T) {
		n.put(t, many[:MaxOperations]...)
		n.put(t, big(MaxCommandBytes-200))
		o := transactionOf(override("o", MaxTTL), override("p", MinTTL))
		o.Reason = "incident"
		if _, err := n.state.Apply(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("the state's own", func(t *testing.T) {
		req := transactionOf()
		for i := range 300 { // every one in a namespace of its own
			op := flag("a", `1`)
			op.GetPut().Key.Namespace = fmt.Sprintf("ns-%d", i)
			req.Operations = append(req.Operations, op)
		}
		for round := range 4 {
			for i, op := range req.GetOperations() {
				op.GetPut().Key.Namespace = fmt.Sprintf("ns-%d-%d", round, i)
			}
			req.RequestId = randomID()
			if _, err := n.state.Apply(t.Context(), req); round == 3 {
				expect(t, err, state.ReasonTooManyNamespaces)
			} else if err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestApplyBoundsItsViolations(t *testing.T) {
	n := single(t)
	req := transactionOf()
	for range MaxOperations {
		req.Operations = append(req.Operations, flag("", `1`))
	}
	_, err := n.state.Apply(t.Context(), req)
	expect(t, err, ReasonInvalidRequest)
	got := violationsOf(err)
	if len(got) > MaxViolations || got[len(got)-1] != fmt.Sprintf(": %d more problems are not listed", MaxOperations-len(got)+1) {
		t.Errorf("%d violations, the last is %q", len(got), got[len(got)-1])
	}
	if size := proto.Size(status.Convert(err).Proto()); size > 16<<10 {
		t.Errorf("the status has %d bytes", size)
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	n := single(t)
	n.put(t, flag("a", `1`))
	req := transactionOf(flag("a", `2`), flag("b", `1`), remove("a2"))
	req.DryRun, req.RequestId = true, nil
	resp, err := n.state.Apply(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	c := resp.GetChanges()
	if len(c) != 3 || string(c[0].GetBefore().GetSpec()) != "1" || string(c[0].GetAfter().GetSpec()) != "2" ||
		c[1].GetBefore() != nil || c[1].GetType() != holdfastv1.ChangeType_CHANGE_TYPE_CREATED || resp.GetRevision() != 1 {
		t.Errorf("dry run = %v", resp)
	}
	req.Operations[0].ExpectedRevision = proto.Uint64(0)
	_, err = n.state.Apply(t.Context(), req)
	expect(t, err, state.ReasonRevisionMismatch)
	if n.replica.View().Revision() != 1 || n.replica.cluster.proposals() != 2 {
		t.Error("a dry run was proposed")
	}
}

func TestApplyOutcomes(t *testing.T) {
	tests := map[string]struct {
		before, after error
		reason        string
		attempts      int
	}{
		"unknown":                  {after: fmt.Errorf("leadership lost: %w", consensus.ErrUnknownOutcome), reason: ReasonUnknownOutcome, attempts: 1},
		"unexplained":              {after: errors.New("disk on fire"), reason: ReasonUnknownOutcome, attempts: 1},
		"time over while applying": {after: context.DeadlineExceeded, reason: ReasonUnknownOutcome, attempts: 1},
		"the replica's own":        {before: Errorf(ReasonNotServing, "recovering"), reason: ReasonNotServing, attempts: 1},
		"too large":                {before: consensus.ErrTooLarge, reason: state.ReasonCommandTooLarge, attempts: 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := single(t)
			attempts := 0
			n.replica.cluster.setOnPropose(func(*storagev1.Command) (before, after error) {
				attempts++
				return test.before, test.after
			})
			_, err := n.state.Apply(t.Context(), transactionOf(flag("a", `1`)))
			expect(t, err, test.reason)
			if attempts != test.attempts {
				t.Errorf("%d attempts, want %d", attempts, test.attempts)
			}
		})
	}
}

func TestApplyRepeatsWhatHadNoEffect(t *testing.T) {
	n := single(t)
	var ages []int64
	n.replica.cluster.setOnPropose(func(cmd *storagev1.Command) (before, after error) {
		ages = append(ages, cmd.GetAgeMs())
		switch len(ages) {
		case 1, 2, 3:
			return &consensus.NotLeaderError{}, nil
		case 4, 5:
			return fmt.Errorf("%w: handing over", consensus.ErrUnavailable), nil
		default:
			return nil, nil
		}
	})
	req := transactionOf(flag("a", `1`))
	req.Age = durationpb.New(time.Second)
	if _, err := n.state.Apply(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if len(ages) != 6 || ages[0] < 1000 || !slices.IsSorted(ages) || ages[5] <= ages[0] {
		t.Errorf("ages of the attempts = %v, want six that grow from 1000 on", ages)
	}
}
