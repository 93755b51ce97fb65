package api

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// requestIDBytes is the length of a request id.
	requestIDBytes = 16
	// stampBytes is what the leader's stamp and a growing age add to a command.
	stampBytes = 24
)

// transaction turns requests into commands.
type transaction struct {
	validator Validator
	v         violations
	// seen says which operation has a resource, since a resource may occur once.
	seen map[placedKey]int
}

// placedKey is a key with its namespace.
type placedKey struct {
	namespace string
	document.Key
}

// String returns the key as "namespace/kind/name".
func (k placedKey) String() string { return k.namespace + "/" + k.Key.String() }

// command validates the request and returns its command, with the resources in
// the order of the operations. The error tells everything that is wrong.
func command(validator Validator, req *holdfastv1.ApplyRequest, actor *holdfastv1.Actor) (*storagev1.Command, []placedKey, error) {
	t := &transaction{validator: validator, seen: make(map[placedKey]int, len(req.GetOperations()))}
	t.checkEnvelope(req)
	// More would only be work on a request that is refused.
	operations := req.GetOperations()[:min(len(req.GetOperations()), MaxOperations)]
	keys := make([]placedKey, len(operations))
	steps := make([]*storagev1.Step, len(operations))
	for i, op := range operations {
		keys[i], steps[i] = t.step(i, op, req.GetReason())
	}
	cmd := &storagev1.Command{
		Version:   state.Version,
		RequestId: req.GetRequestId(),
		AgeMs:     req.GetAge().AsDuration().Milliseconds(),
		Actor:     actor,
		Reason:    req.GetReason(),
		Body:      &storagev1.Command_Transaction{Transaction: &storagev1.Transaction{Steps: steps}},
	}
	if len(t.v.list) == 0 {
		// Only what is well formed otherwise is worth measuring.
		if n := proto.Size(cmd) + stampBytes; n > MaxCommandBytes {
			t.v.addf("operations", "the transaction takes %d bytes; at most %d are allowed: split it", n, MaxCommandBytes)
		}
	}
	return cmd, keys, t.v.err()
}

// checkEnvelope checks everything but the operations.
func (t *transaction) checkEnvelope(req *holdfastv1.ApplyRequest) {
	if n := len(req.GetRequestId()); n != requestIDBytes && (n != 0 || !req.GetDryRun()) {
		t.v.addf("request_id", "has %d bytes; exactly %d random ones are required", n, requestIDBytes)
	}
	t.v.duration("age", req.GetAge())
	switch n := len(req.GetOperations()); {
	case n == 0:
		t.v.addf("operations", "is empty")
	case n > MaxOperations:
		t.v.addf("operations", "has %d entries; at most %d are allowed: split it", n, MaxOperations)
	}
	t.v.text("reason", req.GetReason(), MaxReasonBytes)
	t.v.text("claimed_actor", req.GetClaimedActor(), MaxActorBytes)
}

// text checks a text that people read: its length, and that it cannot garble
// their terminals. Line breaks and tabs are allowed.
func (v *violations) text(field, text string, limit int) {
	switch {
	case len(text) > limit:
		v.addf(field, "has %d bytes; at most %d are allowed", len(text), limit)
	case !utf8.ValidString(text):
		v.addf(field, "is not valid UTF-8")
	default:
		for i, r := range text {
			if !unicode.IsPrint(r) && r != '\n' && r != '\t' {
				v.addf(field, "holds the unprintable character %U at byte %d", r, i)
				return
			}
		}
	}
}

// step checks one operation.
func (t *transaction) step(i int, op *holdfastv1.Operation, reason string) (placedKey, *storagev1.Step) {
	at := fmt.Sprintf("operations[%d]", i)
	step := &storagev1.Step{ExpectedRevision: op.ExpectedRevision} //nolint:protogetter // presence matters
	var key placedKey
	switch action := op.GetAction().(type) {
	case *holdfastv1.Operation_Put:
		key = t.key(i, at+".put.key", action.Put.GetKey())
		t.put(at+".put", key, action.Put, step, reason)
	case *holdfastv1.Operation_Delete:
		key = t.key(i, at+".delete.key", action.Delete.GetKey())
		step.Delete = true
	default:
		t.v.addf(at, "does nothing: one of put and delete is required")
	}
	step.Key = key.Proto(key.namespace)
	return key, step
}

// key checks which resource an operation is about.
func (t *transaction) key(i int, at string, p *holdfastv1.ResourceKey) placedKey {
	key, ok := t.v.key(at, p)
	if !ok {
		return key
	}
	if first, twice := t.seen[key]; twice {
		t.v.addf(at, "is the same resource as that of operations[%d]; a resource may occur once", first)
	} else {
		t.seen[key] = i
	}
	return key
}

// key checks a resource's key and tells whether it is well formed.
func (v *violations) key(at string, p *holdfastv1.ResourceKey) (placedKey, bool) {
	if p == nil {
		v.addf(at, "is not set")
		return placedKey{}, false
	}
	before := len(v.list)
	namespace := v.namespace(at+".namespace", p.GetNamespace())
	kind, ok := kindOf(p.GetKind())
	if !ok {
		v.addf(at+".kind", "is %v; it must be a flag, mode, policy or override", p.GetKind())
	}
	if err := document.CheckName(p.GetName()); err != nil {
		v.addf(at+".name", "%v", err)
	}
	if len(v.list) > before {
		return placedKey{}, false
	}
	return placedKey{namespace, document.Key{Kind: kind, Name: p.GetName()}}, true
}

// namespace checks the name of a namespace and returns it, or the default one.
func (v *violations) namespace(at, name string) string {
	name = cmp.Or(name, document.DefaultNamespace)
	if err := document.CheckName(name); err != nil {
		v.addf(at, "%v", err)
	}
	return name
}

// put checks what is to be stored and fills in the step.
func (t *transaction) put(at string, key placedKey, put *holdfastv1.Put, step *storagev1.Step, reason string) {
	t.v.labels(at+".labels", put.GetLabels())
	for _, l := range document.LabelsOf(put.GetLabels()) {
		step.Labels = append(step.Labels, &storagev1.Label{Key: l.Key, Value: l.Value})
	}
	t.ttl(at+".ttl", put, step)
	if put.GetKey().GetKind() == holdfastv1.Kind_KIND_OVERRIDE && reason == "" {
		t.v.addf("reason", "is required, because %s puts an override", at)
	}
	spec, err := document.Canonical(put.GetSpec())
	if err != nil {
		t.v.addf(at+".spec", "%v", err)
		return
	}
	step.Spec = spec
	if key.Name == "" {
		return // what kind of definition it is, nobody knows
	}
	for _, violation := range t.validator.Validate(key.Key, spec) {
		t.v.addf(at+".spec", "%s", violation)
	}
}

// ttl checks how long an override lasts.
func (t *transaction) ttl(at string, put *holdfastv1.Put, step *storagev1.Step) {
	if put.GetKey().GetKind() != holdfastv1.Kind_KIND_OVERRIDE {
		if put.GetTtl() != nil {
			t.v.addf(at, "is only for overrides")
		}
		return
	}
	ttl := put.GetTtl().AsDuration()
	switch {
	case put.GetTtl() == nil:
		t.v.addf(at, "is required: an override always has an end")
	case !put.GetTtl().IsValid():
		t.v.addf(at, "is not a valid duration")
	case ttl < MinTTL || ttl > MaxTTL:
		t.v.addf(at, "is %s; it must be between %s and %s", ttl, MinTTL, MaxTTL)
	}
	step.TtlMs = ttl.Milliseconds()
}

// labels checks the labels of a resource or of a filter.
func (v *violations) labels(at string, labels map[string]string) {
	if n := len(labels); n > MaxLabels {
		v.addf(at, "has %d entries; at most %d are allowed", n, MaxLabels)
		return
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if err := document.CheckName(key); err != nil {
			v.addf(at, "the key %q: %v", key, err)
		} else if len(key) > MaxLabelKeyBytes {
			v.addf(at, "the key %q has %d bytes; at most %d are allowed", key, len(key), MaxLabelKeyBytes)
		}
		v.text(fmt.Sprintf("%s[%q]", at, key), labels[key], MaxLabelValueBytes)
	}
}

// proto returns the key's wire form.
func (k placedKey) proto() *holdfastv1.ResourceKey { return k.Proto(k.namespace) }
