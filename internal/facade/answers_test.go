package facade

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/holdfast-dev/holdfast/internal/document"
	evaluationv1 "github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v1"
	"github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v1/evaluationv1connect"
	evaluationv2 "github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v2"
	"github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v2/evaluationv2connect"
)

// exampleFlags are one of each kind.
func exampleFlags() []string {
	return []string{
		"bool", on,
		"string", `{"state":"ENABLED","variants":{"a":"x\"y","b":""},"defaultVariant":"a"}`,
		"empty", `{"state":"ENABLED","variants":{"a":"x","b":""},"defaultVariant":"b"}`,
		"int", `{"state":"ENABLED","variants":{"big":9007199254740991},"defaultVariant":"big"}`,
		"float", `{"state":"ENABLED","variants":{"pi":3.14},"defaultVariant":"pi"}`,
		"object", `{"state":"ENABLED","variants":{"o":{"a":[1,{"b":null}],"n":2.5}},"defaultVariant":"o"}`,
		"no-default", `{"state":"ENABLED","variants":{"on":true}}`,
		"empty-default", `{"state":"ENABLED","variants":{"on":true},"defaultVariant":""}`,
		"disabled", `{"state":"DISABLED","variants":{"on":true},"defaultVariant":"on","metadata":{"v":1}}`,
		"rule", `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off","targeting":{"if":[{"==":[{"var":"plan"},"gold"]},"on"]}}`,
		"rule-no-default", `{"state":"ENABLED","variants":{"on":true},"targeting":{"if":[{"==":[{"var":"plan"},"gold"]},"on"]}}`,
		"lost", `{"state":"ENABLED","variants":{"on":true},"defaultVariant":"on","targeting":{"var":"plan"}}`,
		"broken", `{"state":"ENABLED","variants":{"on":true},"defaultVariant":"on","targeting":{"nonsense":[1]}}`,
		"meta", `{"state":"ENABLED","variants":{"on":true},"defaultVariant":"on","metadata":{"flagSetId":"s","version":2,"x":true}}`,
		"whom", `{"state":"ENABLED","variants":{"ann":1,"bob":2},"targeting":{"var":"targetingKey"}}`,
		"deep", `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off","targeting":{"if":[{"===":[{"var":"user.ids.1"},7]},"on"]}}`,
	}
}

// answerCase is what a flag is in each protocol, for the context below.
type answerCase struct {
	key    string
	method string // Boolean, String, Float, Int or Object
	// v2 is the answer as JSON, or a code.
	v2   string
	code codes.Code
	// old is the answer of v1 where it is another, oldCode its code.
	old     string
	oldCode codes.Code
	// ofrep is the body of the single evaluation, empty for what OFREP does not
	// know; status is 200 if it is 0.
	ofrep  string
	status int
}

const exampleContext = `{"targetingKey":"bob","plan":"gold","user":{"ids":[1,7]}}`

func answerCases() []answerCase {
	return []answerCase{
		{
			key: "bool", method: "Boolean", v2: `{"value":true,"reason":"STATIC","variant":"on","metadata":{}}`,
			ofrep: `{"key":"bool","reason":"STATIC","variant":"on","value":true}`,
		},
		{
			key: "string", method: "String", v2: `{"value":"x\"y","reason":"STATIC","variant":"a","metadata":{}}`,
			ofrep: `{"key":"string","reason":"STATIC","variant":"a","value":"x\"y"}`,
		},
		{
			key: "empty", method: "String", v2: `{"value":"","reason":"STATIC","variant":"b","metadata":{}}`,
			old:   `{"reason":"STATIC","variant":"b","metadata":{}}`,
			ofrep: `{"key":"empty","reason":"STATIC","variant":"b","value":""}`,
		},
		{
			key: "int", method: "Int", v2: `{"value":"9007199254740991","reason":"STATIC","variant":"big","metadata":{}}`,
			ofrep: `{"key":"int","reason":"STATIC","variant":"big","value":9007199254740991}`,
		},
		{key: "int", method: "Float", v2: `{"value":9007199254740991,"reason":"STATIC","variant":"big","metadata":{}}`},
		{
			key: "float", method: "Float", v2: `{"value":3.14,"reason":"STATIC","variant":"pi","metadata":{}}`,
			ofrep: `{"key":"float","reason":"STATIC","variant":"pi","value":3.14}`,
		},
		{key: "float", method: "Int", code: codes.InvalidArgument},
		{key: "bool", method: "String", code: codes.InvalidArgument},
		{key: "object", method: "Boolean", code: codes.InvalidArgument},
		{key: "string", method: "Object", code: codes.InvalidArgument},
		{
			key: "object", method: "Object", v2: `{"value":{"a":[1,{"b":null}],"n":2.5},"reason":"STATIC","variant":"o","metadata":{}}`,
			ofrep: `{"key":"object","reason":"STATIC","variant":"o","value":{"a":[1,{"b":null}],"n":2.5}}`,
		},
		{
			key: "no-default", method: "Boolean", v2: `{"reason":"DEFAULT","metadata":{}}`, oldCode: codes.NotFound,
			ofrep: `{"key":"no-default","reason":"DEFAULT"}`,
		},
		{
			key: "empty-default", method: "Boolean", v2: `{"reason":"DEFAULT","metadata":{}}`, oldCode: codes.NotFound,
			ofrep: `{"key":"empty-default","reason":"DEFAULT"}`,
		},
		{
			key: "disabled", method: "Boolean", v2: `{"reason":"DISABLED","metadata":{"v":1}}`,
			ofrep: `{"key":"disabled","reason":"DISABLED","metadata":{"v":1}}`,
		},
		{key: "disabled", method: "Object", v2: `{"reason":"DISABLED","metadata":{"v":1}}`},
		{
			key: "rule", method: "Boolean", v2: `{"value":true,"reason":"TARGETING_MATCH","variant":"on","metadata":{}}`,
			ofrep: `{"key":"rule","reason":"TARGETING_MATCH","variant":"on","value":true}`,
		},
		{
			key: "lost", method: "Boolean", code: codes.Unknown, status: http.StatusBadRequest,
			ofrep: `{"key":"lost","errorCode":"GENERAL","errorDetails":"the rules of flag \"lost\" name a variant that does not exist"}`,
		},
		{
			key: "broken", method: "Boolean", code: codes.DataLoss, status: http.StatusBadRequest,
			ofrep: `{"key":"broken","errorCode":"PARSE_ERROR","errorDetails":"the rules of flag \"broken\" cannot be evaluated"}`,
		},
		{
			key: "nowhere", method: "Boolean", code: codes.NotFound, status: http.StatusNotFound,
			ofrep: `{"key":"nowhere","errorCode":"FLAG_NOT_FOUND","errorDetails":"there is no flag \"nowhere\""}`,
		},
		{
			key: "meta", method: "Boolean", v2: `{"value":true,"reason":"STATIC","variant":"on","metadata":{"flagSetId":"s","version":2,"x":true}}`,
			ofrep: `{"key":"meta","reason":"STATIC","variant":"on","value":true,"metadata":{"flagSetId":"s","version":2,"x":true}}`,
		},
		{key: "whom", method: "Int", v2: `{"value":"2","reason":"TARGETING_MATCH","variant":"bob","metadata":{}}`},
		{key: "deep", method: "Boolean", v2: `{"value":true,"reason":"TARGETING_MATCH","variant":"on","metadata":{}}`},
		{key: "forced", method: "Boolean", v2: `{"value":true,"reason":"STATIC","variant":"on","metadata":{"holdfast.forcedBy":"override/o1"}}`},
		{key: "scoped", method: "Boolean", v2: `{"value":false,"reason":"STATIC","variant":"off","metadata":{}}`},
	}
}

// examples serves the flags, with overrides for everybody and for labels, which a
// server has none of.
func examples(t *testing.T) *served {
	t.Helper()
	r := newReplica(t)
	r.set(exampleFlags()...)
	r.set("forced", `{"state":"DISABLED","variants":{"on":true,"off":false},"defaultVariant":"off"}`, "scoped", off)
	r.do(transaction(
		put("default", document.Override, "o1", `{"flag":"forced","variant":"on"}`),
		put("default", document.Override, "o2", `{"flag":"scoped","variant":"on","scope":{"selector":"service=checkout"}}`),
		put("default", document.Override, "o3", `{"flag":"scoped","variant":"on","scope":{"percent":50}}`),
	))
	return serve(t, r, Config{})
}

func contextOf(t *testing.T, text string) *structpb.Struct {
	t.Helper()
	s := &structpb.Struct{}
	if err := s.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return s
}

// invoke calls a method of v1 or v2 and returns the response as JSON.
func invoke(ctx context.Context, conn grpc.ClientConnInterface, version, method string, key string, ec *structpb.Struct) (string, error) {
	type row struct{ in, out proto.Message }
	rows := map[string]row{
		"v1Boolean": {&evaluationv1.ResolveBooleanRequest{FlagKey: key, Context: ec}, &evaluationv1.ResolveBooleanResponse{}},
		"v1String":  {&evaluationv1.ResolveStringRequest{FlagKey: key, Context: ec}, &evaluationv1.ResolveStringResponse{}},
		"v1Float":   {&evaluationv1.ResolveFloatRequest{FlagKey: key, Context: ec}, &evaluationv1.ResolveFloatResponse{}},
		"v1Int":     {&evaluationv1.ResolveIntRequest{FlagKey: key, Context: ec}, &evaluationv1.ResolveIntResponse{}},
		"v1Object":  {&evaluationv1.ResolveObjectRequest{FlagKey: key, Context: ec}, &evaluationv1.ResolveObjectResponse{}},
		"v2Boolean": {&evaluationv2.ResolveBooleanRequest{FlagKey: key, Context: ec}, &evaluationv2.ResolveBooleanResponse{}},
		"v2String":  {&evaluationv2.ResolveStringRequest{FlagKey: key, Context: ec}, &evaluationv2.ResolveStringResponse{}},
		"v2Float":   {&evaluationv2.ResolveFloatRequest{FlagKey: key, Context: ec}, &evaluationv2.ResolveFloatResponse{}},
		"v2Int":     {&evaluationv2.ResolveIntRequest{FlagKey: key, Context: ec}, &evaluationv2.ResolveIntResponse{}},
		"v2Object":  {&evaluationv2.ResolveObjectRequest{FlagKey: key, Context: ec}, &evaluationv2.ResolveObjectResponse{}},
	}
	r := rows[version+method]
	if err := conn.Invoke(ctx, "/flagd.evaluation."+version+".Service/Resolve"+method, r.in, r.out); err != nil {
		return "", err
	}
	return jsonOf(r.out), nil
}

func TestEveryAnswerOverGRPC(t *testing.T) {
	s := examples(t)
	ec := contextOf(t, exampleContext)
	for port, conn := range s.ports() {
		for _, c := range answerCases() {
			got, err := invoke(within(t), conn, "v2", c.method, c.key, ec)
			if status.Code(err) != c.code || !sameJSON(t, got, c.v2) {
				t.Errorf("%s: v2 %s %s: %s, %v; want %s, %v", port, c.method, c.key, got, err, c.v2, c.code)
			}
			want, code := c.v2, c.code
			if c.old != "" {
				want = c.old
			}
			if c.oldCode != 0 {
				want, code = "", c.oldCode
			}
			got, err = invoke(within(t), conn, "v1", c.method, c.key, ec)
			if status.Code(err) != code || !sameJSON(t, got, withoutZeros(t, want)) {
				t.Errorf("%s: v1 %s %s: %s, %v; want %s, %v", port, c.method, c.key, got, err, want, code)
			}
		}
	}
}

func TestEveryAnswerOverOFREP(t *testing.T) {
	s := examples(t)
	for _, c := range answerCases() {
		if c.ofrep == "" {
			continue
		}
		want := max(c.status, http.StatusOK)
		if c.status == 0 {
			want = http.StatusOK
		}
		got := s.ask("POST", pathEvaluate+"/"+c.key, `{"context":`+exampleContext+`}`)
		if got.status != want || got.body != c.ofrep || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s %v, want %d %s", c.key, got.status, got.body, got.header, want, c.ofrep)
		}
	}
}

// TestEveryProtocolOfConnect asks in Connect with JSON and protobuf, gRPC-Web and
// gRPC, over HTTP/1.1 and HTTP/2.
func TestEveryProtocolOfConnect(t *testing.T) {
	s := examples(t)
	two := &http.Transport{Protocols: new(http.Protocols)}
	two.Protocols.SetUnencryptedHTTP2(true)
	one := &http.Transport{}
	defer two.CloseIdleConnections()
	defer one.CloseIdleConnections()
	for name, options := range map[string][]connect.ClientOption{
		"Connect": nil, "Connect with JSON": {connect.WithProtoJSON()}, "gRPC-Web": {connect.WithGRPCWeb()}, "gRPC": {connect.WithGRPC()},
	} {
		for version, transport := range map[string]*http.Transport{" over HTTP/1.1": one, " over HTTP/2": two} {
			if name == "gRPC" && transport == one {
				continue
			}
			client := evaluationv2connect.NewServiceClient(&http.Client{Transport: transport}, s.url, options...)
			old := evaluationv1connect.NewServiceClient(&http.Client{Transport: transport}, s.url, options...)
			got, err := client.ResolveBoolean(within(t), &evaluationv2.ResolveBooleanRequest{FlagKey: "rule", Context: contextOf(t, exampleContext)})
			if err != nil || !got.GetValue() || got.GetVariant() != "on" {
				t.Errorf("%s%s: %v %v", name, version, got, err)
			}
			_, err = client.ResolveInt(within(t), &evaluationv2.ResolveIntRequest{FlagKey: "float"})
			if connect.CodeOf(err) != connect.CodeInvalidArgument {
				t.Errorf("%s%s: mismatch is %v", name, version, err)
			}
			all, err := old.ResolveAll(within(t), &evaluationv1.ResolveAllRequest{})
			if err != nil || !all.GetFlags()["bool"].GetBoolValue() {
				t.Errorf("%s%s: %v %v", name, version, all, err)
			}
			ctx, cancel := context.WithCancel(within(t))
			events, err := old.EventStream(ctx, &evaluationv1.EventStreamRequest{})
			if err != nil || !events.Receive() || events.Msg().GetType() != eventReady {
				t.Errorf("%s%s: events %v", name, version, err)
			}
			cancel()
			if events != nil {
				_ = events.Close()
			}
		}
	}
}

func TestResolveAll(t *testing.T) {
	s := examples(t)
	client := evaluationv1.NewServiceClient(s.conn)
	all, err := client.ResolveAll(within(t), &evaluationv1.ResolveAllRequest{Context: contextOf(t, exampleContext)})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"bool":            `{"reason":"STATIC","variant":"on","boolValue":true,"metadata":{}}`,
		"string":          `{"reason":"STATIC","variant":"a","stringValue":"x\"y","metadata":{}}`,
		"empty":           `{"reason":"STATIC","variant":"b","stringValue":"","metadata":{}}`,
		"int":             `{"reason":"STATIC","variant":"big","doubleValue":9007199254740991,"metadata":{}}`,
		"float":           `{"reason":"STATIC","variant":"pi","doubleValue":3.14,"metadata":{}}`,
		"object":          `{"reason":"STATIC","variant":"o","objectValue":{"a":[1,{"b":null}],"n":2.5},"metadata":{}}`,
		"disabled":        `{"reason":"DISABLED","metadata":{"v":1}}`,
		"rule":            `{"reason":"TARGETING_MATCH","variant":"on","boolValue":true,"metadata":{}}`,
		"rule-no-default": `{"reason":"TARGETING_MATCH","variant":"on","boolValue":true,"metadata":{}}`,
		"meta":            `{"reason":"STATIC","variant":"on","boolValue":true,"metadata":{"flagSetId":"s","version":2,"x":true}}`,
		"whom":            `{"reason":"TARGETING_MATCH","variant":"bob","doubleValue":2,"metadata":{}}`,
		"deep":            `{"reason":"TARGETING_MATCH","variant":"on","boolValue":true,"metadata":{}}`,
		"forced":          `{"reason":"STATIC","variant":"on","boolValue":true,"metadata":{"holdfast.forcedBy":"override/o1"}}`,
		"scoped":          `{"reason":"STATIC","variant":"off","boolValue":false,"metadata":{}}`,
	}
	for key, flag := range all.GetFlags() {
		if got := jsonOf(flag); !sameJSON(t, got, want[key]) {
			t.Errorf("%s: %s, want %s", key, got, want[key])
		}
		delete(want, key)
	}
	if len(want) > 0 || len(all.GetMetadata().GetFields()) > 0 {
		t.Errorf("missing are %v, metadata is %v", want, all.GetMetadata())
	}
}

// TestSelectors asks for parts, in every way to say so.
func TestSelectors(t *testing.T) {
	r := newReplica(t)
	r.set("plain", on, "in-a", onIn("a"), "in-b", onIn("b"))
	r.do(transaction(
		put("shop", document.Flag, "plain", off), put("shop", document.Flag, "in-a", onIn("a")), put("shop", document.Flag, "cart", on),
	))
	s := serve(t, r, Config{})
	client := evaluationv1.NewServiceClient(s.conn)
	for selector, want := range map[string]string{
		"":                        `{"in-a":true,"in-b":true,"plain":true}|{}`,
		"flagSetId=a":             `{"in-a":true}|{"flagSetId":"a"}`,
		"flagSetId=":              `{"plain":true}|{"flagSetId":""}`,
		"flagSetId=nobody":        `{}|{"flagSetId":"nobody"}`,
		"source=shop":             `{"cart":true,"in-a":true,"plain":false}|{"source":"shop"}`,
		"shop":                    `{"cart":true,"in-a":true,"plain":false}|{"source":"shop"}`,
		"flagSetId=a,source=shop": `{"in-a":true}|{"flagSetId":"a","source":"shop"}`,
		"source=nowhere":          `{}|{"source":"nowhere"}`,
	} {
		for port, conn := range s.ports() {
			client = evaluationv1.NewServiceClient(conn)
			all, err := client.ResolveAll(withSelector(within(t), selector), &evaluationv1.ResolveAllRequest{})
			if err != nil {
				t.Fatalf("%s: %q: %v", port, selector, err)
			}
			values := map[string]bool{}
			for key, flag := range all.GetFlags() {
				values[key] = flag.GetBoolValue()
			}
			text, _ := json.Marshal(values)
			if got := string(text) + "|" + jsonOf(all.GetMetadata()); got != want {
				t.Errorf("%s: %q: %s, want %s", port, selector, got, want)
			}
		}
		var bulk struct {
			Flags []struct {
				Key   string
				Value bool
			}
			Metadata map[string]any
		}
		got := s.ask("POST", pathEvaluate, "", "Flagd-Selector", selector)
		if err := json.Unmarshal([]byte(got.body), &bulk); err != nil || got.status != http.StatusOK {
			t.Fatalf("%q: %v", selector, got)
		}
		values := map[string]bool{}
		for _, f := range bulk.Flags {
			values[f.Key] = f.Value
		}
		if bulk.Metadata == nil {
			bulk.Metadata = map[string]any{}
		}
		text, _ := json.Marshal(values)
		meta, _ := json.Marshal(bulk.Metadata)
		if all := string(text) + "|" + string(meta); all != want {
			t.Errorf("OFREP: %q: %s, want %s", selector, all, want)
		}
	}
	for _, bad := range []string{"nonsense=1", "source=a,source=b", "flagSetId=a,b"} {
		_, err := client.ResolveAll(withSelector(within(t), bad), &evaluationv1.ResolveAllRequest{})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%q: %v", bad, err)
		}
		for _, path := range []string{pathEvaluate, pathEvaluate + "/plain"} {
			got := s.ask("POST", path, "", "Flagd-Selector", bad)
			var fault struct{ Key, ErrorCode, ErrorDetails string }
			if err := json.Unmarshal([]byte(got.body), &fault); err != nil || got.status != http.StatusBadRequest || fault.ErrorCode != "GENERAL" ||
				fault.ErrorDetails == "" || (fault.Key == "plain") != (path != pathEvaluate) {
				t.Errorf("OFREP: %q: %v", bad, got)
			}
		}
	}
	// A flag that is not selected is not there, and the answer says where it is not.
	got := s.ask("POST", pathEvaluate+"/plain", "", "Flagd-Selector", "flagSetId=a")
	if want := `{"key":"plain","errorCode":"FLAG_NOT_FOUND","errorDetails":"there is no flag \"plain\"","metadata":{"flagSetId":"a"}}`; got.status != http.StatusNotFound || got.body != want {
		t.Errorf("%v", got)
	}
}

// TestWithoutStateNothingIsAnswered is about a server that must not serve.
func TestWithoutStateNothingIsAnswered(t *testing.T) {
	s := ready(t, "f", on)
	s.replica.setServing(errFenced)
	for port, conn := range s.ports() {
		_, err := invoke(within(t), conn, "v2", "Boolean", "f", nil)
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", port, err)
		}
	}
	for path, method := range map[string]string{pathEvaluate: "POST", pathEvaluate + "/f": "POST", pathEvents: "GET"} {
		if got := s.ask(method, path, ""); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func jsonOf(m proto.Message) string {
	var text []byte
	if s, ok := m.(*structpb.Struct); ok {
		text, _ = s.MarshalJSON()
	} else {
		text, _ = protoJSON.Marshal(m)
	}
	return compact(text)
}

func compact(text []byte) string {
	var v any
	if json.Unmarshal(text, &v) != nil {
		return string(text)
	}
	out, _ := json.Marshal(v)
	return string(out)
}

func sameJSON(t *testing.T, got, want string) bool {
	t.Helper()
	return cmp.Equal(compact([]byte(got)), compact([]byte(want)))
}

// withoutZeros drops what protobuf's JSON leaves out.
func withoutZeros(t *testing.T, text string) string {
	t.Helper()
	if text == "" {
		return ""
	}
	var members map[string]any
	if err := json.Unmarshal([]byte(text), &members); err != nil {
		t.Fatal(err)
	}
	if v := members["value"]; v == false || v == "" {
		delete(members, "value")
	}
	out, _ := json.Marshal(members)
	return string(out)
}
