package cli

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-dev/holdfast/internal/yamlfile"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// TestLargeListCanBeAppliedAgain reads what `flag list -o yaml` prints.
func TestLargeListCanBeAppliedAgain(t *testing.T) {
	const count = 2_000
	list := listView[resourceView]{head: newHead(listKind), Revision: 7}
	for i := range count {
		list.Items = append(list.Items, viewOf(&holdfastv1.Resource{
			Key:  &holdfastv1.ResourceKey{Namespace: "default", Kind: holdfastv1.Kind_KIND_FLAG, Name: fmt.Sprintf("f%d", i)},
			Spec: []byte(`{"defaultVariant":"on","state":"ENABLED","variants":{"off":false,"on":true}}`), Labels: map[string]string{"team": "shop"},
			CreateTime: timestamppb.Now(), UpdateTime: timestamppb.Now(),
		}))
	}
	var out bytes.Buffer
	if err := encode(&out, yamlFormat, list, true); err != nil {
		t.Fatal(err)
	}
	r := manifestReader{}
	r.parse("list.yaml", out.Bytes())
	if len(r.problems) > 0 || len(r.manifests) != count {
		t.Fatalf("%d documents, problems %v", len(r.manifests), r.problems)
	}
	last := r.manifests[count-1]
	if last.String() != "flag/f1999" || last.labels["team"] != "shop" || string(last.spec) != string(list.Items[count-1].Spec) {
		t.Errorf("the last one is %+v", last)
	}
}

// TestYAMLInPartsIsTheSame compares a list that is encoded in parts with one
// that the library encodes at once.
func TestYAMLInPartsIsTheSame(t *testing.T) {
	var src strings.Builder
	src.WriteString(`{"kind":"List","revision":7,"none":[],"items":[`)
	for i := range 2*yamlChunk + 1 {
		fmt.Fprintf(&src, `{"name":"f%d","text":"two\n\n lines\n","spec":{"on":["12:30","yes",null,{"a":[]}]}},[[1]],"x y: #",`, i)
	}
	src.WriteString(`{}],"last":"off"}`)
	nodes, faults := yamlfile.Parse(".json", []byte(src.String()))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	var whole bytes.Buffer
	if err := encodeYAML(&whole, nodes[0]); err != nil {
		t.Fatal(err)
	}
	parts, err := jsonToYAML([]byte(src.String()))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := splitLines(string(parts)), splitLines(whole.String()); !slices.Equal(got, want) {
		t.Error(diffText(whole.String(), string(parts)))
	}
}
