package document

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

func example() *Resource {
	return &Resource{
		Key:            Key{Override, "mode-storefront"},
		Spec:           []byte(`{"level":"read-only","mode":"storefront"}`),
		Labels:         []Label{{"team", "shop"}, {"tier", "1"}},
		CreateRevision: 3, ModRevision: 5, Version: 2,
		CreateTime: 1_700_000_000_001, UpdateTime: 1_700_000_000_002, End: 1_700_000_000_003,
		Actor: "operator/ann", ActorVerified: true,
		Reason: "db failover",
	}
}

// TestHashCoversEveryField changes one field after the other, and moves bytes
// between neighbours; no two of them may have the same hash.
func TestHashCoversEveryField(t *testing.T) {
	seen := map[[32]byte]string{}
	for name, change := range map[string]func(*Resource){
		"nothing":           func(*Resource) {},
		"kind":              func(r *Resource) { r.Kind = Flag },
		"name":              func(r *Resource) { r.Name += "x" },
		"spec":              func(r *Resource) { r.Spec = []byte(`{}`) },
		"label value":       func(r *Resource) { r.Labels[0].Value = "x" },
		"label boundary":    func(r *Resource) { r.Labels[0] = Label{"tea", "mshop"} },
		"fewer labels":      func(r *Resource) { r.Labels = r.Labels[:1] },
		"no labels":         func(r *Resource) { r.Labels = nil },
		"create revision":   func(r *Resource) { r.CreateRevision++ },
		"mod revision":      func(r *Resource) { r.ModRevision++ },
		"version":           func(r *Resource) { r.Version++ },
		"create time":       func(r *Resource) { r.CreateTime++ },
		"update time":       func(r *Resource) { r.UpdateTime++ },
		"end":               func(r *Resource) { r.End++ },
		"no end":            func(r *Resource) { r.End = 0 },
		"negative end":      func(r *Resource) { r.End = -r.End },
		"actor":             func(r *Resource) { r.Actor = "ann" },
		"actor not proven":  func(r *Resource) { r.ActorVerified = false },
		"reason":            func(r *Resource) { r.Reason = "" },
		"reason moved":      func(r *Resource) { r.Actor, r.Reason = r.Actor+"d", r.Reason[1:] },
		"reason and spec":   func(r *Resource) { r.Reason, r.Spec = r.Reason+"{", r.Spec[1:] },
		"long actor":        func(r *Resource) { r.Actor = strings.Repeat("a", 5000) },
		"long actor but 1":  func(r *Resource) { r.Actor = strings.Repeat("a", 4999) },
		"resource of zeros": func(r *Resource) { *r = Resource{} },
	} {
		r := example()
		change(r)
		if other, ok := seen[r.Hash()]; ok {
			t.Errorf("%q and %q have the same hash", name, other)
		}
		seen[r.Hash()] = name
	}
	if (&Resource{Labels: []Label{}, Spec: []byte{}}).Hash() != (&Resource{}).Hash() {
		t.Error("empty and nil hash differently")
	}
}

// TestHashIsPinned fails when the encoding changes, which two versions in one
// cluster would not survive.
func TestHashIsPinned(t *testing.T) {
	const want = "e0842a48e0136fae4554c21d4a37fca69cf865349d3d0bbc4ff2d182aa3cb55f"
	if got := fmt.Sprintf("%x", example().Hash()); got != want {
		t.Errorf("hash %s, want %s", got, want)
	}
}

func TestResourceAllocations(t *testing.T) {
	r := example()
	if n := testing.AllocsPerRun(100, func() { sinkHash = r.Hash() }); n != 0 {
		t.Errorf("Hash: %v allocations, want none", n)
	}
	if n := testing.AllocsPerRun(100, func() { sinkSize = r.Size() }); n != 0 {
		t.Errorf("Size: %v allocations, want none", n)
	}
}

func TestSizeCountsEveryText(t *testing.T) {
	r := example()
	before := r.Size()
	r.Name += "1"
	r.Spec = append(r.Spec, '2')
	r.Labels = append(r.Labels, Label{"3", "4"})
	r.Actor += "5"
	r.Reason += "6"
	if got := r.Size() - before; got != 6+labelOverhead {
		t.Errorf("six more bytes and a label count %d", got)
	}
}

func TestProtoRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := resourceGen().Draw(t, "resource")
		wire, err := proto.Marshal(r.Proto("shop"))
		if err != nil {
			t.Fatal(err)
		}
		var p holdfastv1.Resource
		if err := proto.Unmarshal(wire, &p); err != nil {
			t.Fatal(err)
		}
		namespace, got, err := FromProto(&p)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got, cmpopts.EquateEmpty()); diff != "" || namespace != "shop" {
			t.Fatalf("in namespace %q: %s", namespace, diff)
		}
		if got.Hash() != r.Hash() {
			t.Fatal("the hash changed on the way")
		}
	})
}

func TestFromProtoRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*holdfastv1.Resource)
		want   string
	}{
		{"no key", func(p *holdfastv1.Resource) { p.Key = nil }, "read resource: key is not set"},
		{"no kind", func(p *holdfastv1.Resource) { p.Key.Kind = 0 }, "read resource: unknown kind 0"},
		{"new kind", func(p *holdfastv1.Resource) { p.Key.Kind = 5 }, "read resource: unknown kind 5"},
		{"wrapped kind", func(p *holdfastv1.Resource) { p.Key.Kind = 257 }, "read resource: unknown kind 257"},
		{"negative kind", func(p *holdfastv1.Resource) { p.Key.Kind = -255 }, "read resource: unknown kind -255"},
		{"no name", func(p *holdfastv1.Resource) { p.Key.Name = "" }, "read resource: name is empty"},
		{"long name", func(p *holdfastv1.Resource) { p.Key.Name = strings.Repeat("n", 254) }, "read resource: name has 254 bytes; at most 253 are allowed"},
		{"control character", func(p *holdfastv1.Resource) { p.Key.Name = "a\nb" }, "read resource: name holds the control character U+000A at byte 1"},
		{"bad namespace", func(p *holdfastv1.Resource) { p.Key.Namespace = "\xff" }, "read resource: namespace: name is not valid UTF-8"},
		{"fine time", func(p *holdfastv1.Resource) { p.EndTime.Nanos = 1 }, "read end_time of override/mode-storefront: 1 ns are not whole milliseconds"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := example().Proto("shop")
			c.change(p)
			if _, r, err := FromProto(p); fmt.Sprint(err) != c.want || r != nil {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	p := example().Proto("shop")
	p.UpdateTime = &timestamppb.Timestamp{Seconds: math.MaxInt64}
	if _, _, err := FromProto(p); err == nil || !strings.HasPrefix(err.Error(), "read update_time of override/mode-storefront: ") {
		t.Errorf("got %v for a time beyond all years", err)
	}
	if _, _, err := FromProto(nil); err == nil {
		t.Error("accepted nothing at all")
	}
}

// TestNamesOfOtherVersions reads names that this version of Unicode cannot print.
// Another version may, and what it has accepted must be readable here.
func TestNamesOfOtherVersions(t *testing.T) {
	for _, name := range []string{"a\u00a0b", "zero\u200bwidth", "\ue000private", "\U0003fffd"} {
		if CheckName(name) == nil {
			t.Errorf("CheckName accepts %q", name)
		}
		p := example().Proto(name)
		p.Key.Name = name
		if namespace, r, err := FromProto(p); err != nil || namespace != name || r.Name != name {
			t.Errorf("FromProto of %q: %v", name, err)
		}
		dead := Tombstone{Key: Key{Flag, name}, Revision: 1}
		if _, got, err := TombstoneFromProto(dead.Proto(name)); err != nil || got != dead {
			t.Errorf("TombstoneFromProto of %q: %v", name, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.String().Draw(t, "name")
		if CheckName(name) == nil && CheckStored(name) != nil {
			t.Fatalf("%q may be used and cannot be kept: %v", name, CheckStored(name))
		}
	})
}

func TestEmptyNamespaceIsTheDefaultOne(t *testing.T) {
	namespace, _, err := FromProto(example().Proto(""))
	if namespace != DefaultNamespace || err != nil {
		t.Errorf("got %q, %v", namespace, err)
	}
}

func TestTombstoneRoundTrip(t *testing.T) {
	for _, want := range []Tombstone{{Key{Flag, "a"}, 7, false}, {Key{Override, "b"}, 8, true}} {
		namespace, got, err := TombstoneFromProto(want.Proto("shop"))
		if got != want || namespace != "shop" || err != nil {
			t.Errorf("got %+v in %q, %v; want %+v", got, namespace, err, want)
		}
	}
	p := Tombstone{Key: Key{Flag, "a"}}.Proto("shop")
	p.Type = Created.Proto()
	if _, _, err := TombstoneFromProto(p); err == nil {
		t.Error("accepted a tombstone of type created")
	}
	if _, _, err := TombstoneFromProto(nil); err == nil {
		t.Error("accepted nothing at all")
	}
}

func FuzzFromProto(f *testing.F) {
	for _, r := range []*Resource{example(), {Key: Key{Flag, "f"}}, {Key: Key{Policy, "é"}, CreateTime: -1}} {
		wire, err := proto.Marshal(r.Proto("shop"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		var p holdfastv1.Resource
		if proto.Unmarshal(wire, &p) != nil {
			return
		}
		namespace, r, err := FromProto(&p)
		if err != nil {
			if r != nil || namespace != "" {
				t.Fatalf("an error and %v of %q", r, namespace)
			}
			return
		}
		again, same, err := FromProto(r.Proto(namespace))
		if err != nil || again != namespace || same.Hash() != r.Hash() {
			t.Fatalf("%+v came back as %+v, %v", r, same, err)
		}
	})
}

func TestKinds(t *testing.T) {
	for _, k := range Kinds() {
		if got, err := ParseKind(k.String()); got != k || err != nil || !k.Known() {
			t.Errorf("ParseKind(%q) = %v, %v", k, got, err)
		}
		if want := strings.ToLower(strings.TrimPrefix(holdfastv1.Kind(k).String(), "KIND_")); k.String() != want {
			t.Errorf("%d is %q here and %q on the wire", k, k, want)
		}
	}
	if _, err := ParseKind("flags"); err == nil {
		t.Error("parsed a kind that is none")
	}
	for c := Created; c <= Ended; c++ {
		if want := strings.ToLower(strings.TrimPrefix(c.Proto().String(), "CHANGE_TYPE_")); c.String() != want {
			t.Errorf("%d is %q here and %q on the wire", c, c, want)
		}
	}
}

func TestKeyOrder(t *testing.T) {
	ordered := []Key{{Flag, "B"}, {Flag, "a"}, {Flag, "aa"}, {Flag, "b"}, {Mode, "a"}}
	for i, a := range ordered {
		for j, b := range ordered {
			if got := a.Compare(b); (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("%v compared with %v: %d", a, b, got)
			}
		}
	}
}

func BenchmarkHash(b *testing.B) {
	r := example()
	b.ReportAllocs()
	for b.Loop() {
		sinkHash = r.Hash()
	}
}

var (
	sinkHash [32]byte
	sinkSize int
)

func resourceGen() *rapid.Generator[*Resource] {
	name := rapid.StringMatching(`[a-zA-Z0-9é._-]{1,20}`)
	text := rapid.StringN(0, 10, 40)
	millis := rapid.Int64Range(0, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
	return rapid.Custom(func(t *rapid.T) *Resource {
		return &Resource{
			Key:            Key{rapid.SampledFrom(Kinds()).Draw(t, "kind"), name.Draw(t, "name")},
			Spec:           []byte(text.Draw(t, "spec")),
			Labels:         LabelsOf(rapid.MapOf(name, text).Draw(t, "labels")),
			CreateRevision: rapid.Uint64().Draw(t, "create revision"),
			ModRevision:    rapid.Uint64().Draw(t, "mod revision"),
			Version:        rapid.Uint64().Draw(t, "version"),
			CreateTime:     millis.Draw(t, "create time"),
			UpdateTime:     millis.Draw(t, "update time"),
			End:            millis.Draw(t, "end"),
			Actor:          text.Draw(t, "actor"),
			ActorVerified:  rapid.Bool().Draw(t, "verified"),
			Reason:         text.Draw(t, "reason"),
		}
	})
}
