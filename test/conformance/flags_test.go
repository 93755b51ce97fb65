package conformance

// definitions are the flags of the default namespace.
var definitions = map[string]string{
	"yes":          `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on"}`,
	"no":           `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off"}`,
	"greeting":     `{"state":"ENABLED","variants":{"hi":"hello, wörld 😀","none":""},"defaultVariant":"hi"}`,
	"silence":      `{"state":"ENABLED","variants":{"hi":"hello","none":""},"defaultVariant":"none"}`,
	"ten":          `{"state":"ENABLED","variants":{"ten":10,"zero":0},"defaultVariant":"ten"}`,
	"zero":         `{"state":"ENABLED","variants":{"ten":10,"zero":0},"defaultVariant":"zero"}`,
	"largest":      `{"state":"ENABLED","variants":{"all":9007199254740991,"least":-9007199254740991},"defaultVariant":"all"}`,
	"half":         `{"state":"ENABLED","variants":{"half":0.5,"none":0},"defaultVariant":"half"}`,
	"settings":     `{"state":"ENABLED","variants":{"a":{"key":"val","list":[1,"x",null],"deep":{"n":1.5,"on":true}},"none":{}},"defaultVariant":"a"}`,
	"nothing":      `{"state":"ENABLED","variants":{"a":{"key":"val"},"none":{}},"defaultVariant":"none"}`,
	"word":         `{"state":"ENABLED","variants":{"a":"A","b":"B"},"defaultVariant":"a"}`,
	"switch":       `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on"}`,
	"off":          `{"state":"DISABLED","variants":{"on":true,"off":false},"defaultVariant":"on"}`,
	"undecided":    `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":null}`,
	"staff":        `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off","targeting":{"if":[{"ends_with":[{"var":"email"},"@example.com"]},"on",null]}}`,
	"beta":         `{"state":"ENABLED","variants":{"true":"new","false":"old"},"defaultVariant":"false","targeting":{"sem_ver":[{"var":"app.version"},">=","2.1.0"]}}`,
	"share":        `{"state":"ENABLED","variants":{"a":"A","b":"B","c":"C"},"defaultVariant":"a","targeting":{"fractional":[["a",1],["b",1],["c",1]]}}`,
	"self":         `{"state":"ENABLED","variants":{"self":"yes","other":"no"},"defaultVariant":"other","targeting":{"if":[{"and":[{"==":[{"var":"$flagd.flagKey"},"self"]},{">":[{"var":"$flagd.timestamp"},1700000000]}]},"self","other"]}}`,
	"tier":         `{"state":"ENABLED","variants":{"gold":2,"pro":1},"defaultVariant":"pro","targeting":{"var":["tier",null]}}`,
	"who":          `{"state":"ENABLED","variants":{"ann":"A","other":"O"},"defaultVariant":"other","targeting":{"if":[{"==":[{"var":"targetingKey"},"ann"]},"ann"]}}`,
	"described":    `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on","metadata":{"owner":"shop","level":3,"paged":true}}`,
	"in-a-set":     `{"state":"ENABLED","variants":{"set":"set"},"defaultVariant":"set","metadata":{"flagSetId":"storefront"}}`,
	"changing":     `{"state":"ENABLED","variants":{"first":"1","second":"2","third":"3"},"defaultVariant":"first"}`,
	"overridden":   `{"state":"ENABLED","variants":{"on":"on","off":"off"},"defaultVariant":"on","targeting":{"if":[{"var":"vip"},"on","on"]}}`,
	"reconnecting": `{"state":"ENABLED","variants":{"first":"1","second":"2","third":"3"},"defaultVariant":"first"}`,
}

// elsewhere is the namespace that only a selector leads to.
const elsewhere = "tenant-b"

var definitionsElsewhere = map[string]string{
	"greeting":   `{"state":"ENABLED","variants":{"b":"hello from b"},"defaultVariant":"b"}`,
	"only-there": `{"state":"ENABLED","variants":{"on":true},"defaultVariant":"on"}`,
}

// question asks for a flag, and answer is what is right; where the caller's
// default applies, value is missing.
type question struct {
	key       string
	kind      string
	byDefault any
	context   map[string]any
	value     any
	variant   string
	reason    string
	code      string
}

var values = []question{
	{key: "yes", kind: boolean, byDefault: false, value: true, variant: "on", reason: "STATIC"},
	{key: "no", kind: boolean, byDefault: true, value: false, variant: "off", reason: "STATIC"},
	{key: "greeting", kind: text, byDefault: "d", value: "hello, wörld 😀", variant: "hi", reason: "STATIC"},
	{key: "silence", kind: text, byDefault: "d", value: "", variant: "none", reason: "STATIC"},
	{key: "ten", kind: integer, byDefault: 1.0, value: 10, variant: "ten", reason: "STATIC"},
	{key: "zero", kind: integer, byDefault: 1.0, value: 0, variant: "zero", reason: "STATIC"},
	{key: "largest", kind: integer, byDefault: 1.0, value: 9007199254740991, variant: "all", reason: "STATIC"},
	{key: "ten", kind: number, byDefault: 0.25, value: 10, variant: "ten", reason: "STATIC"},
	{key: "half", kind: number, byDefault: 0.25, value: 0.5, variant: "half", reason: "STATIC"},
	{key: "settings", kind: object, byDefault: map[string]any{"d": true}, value: map[string]any{
		"key": "val", "list": []any{1, "x", nil}, "deep": map[string]any{"n": 1.5, "on": true},
	}, variant: "a", reason: "STATIC"},
	{key: "nothing", kind: object, byDefault: map[string]any{"d": true}, value: map[string]any{}, variant: "none", reason: "STATIC"},
	{key: "off", kind: boolean, byDefault: true, reason: "DISABLED"},
	{key: "undecided", kind: boolean, byDefault: true, reason: "DEFAULT"},
	{key: "absent", kind: boolean, byDefault: true, reason: "ERROR", code: "FLAG_NOT_FOUND"},
	// Asked for with one type only: a provider may keep a value without its type.
	{key: "word", kind: boolean, byDefault: true, reason: "ERROR", code: "TYPE_MISMATCH"},
	{key: "switch", kind: text, byDefault: "d", reason: "ERROR", code: "TYPE_MISMATCH"},
}

func person(name string, more ...any) map[string]any {
	context := map[string]any{"targetingKey": name}
	for i := 0; i < len(more); i += 2 {
		context[more[i].(string)] = more[i+1]
	}
	return context
}

var targeting = []question{
	{key: "staff", kind: boolean, byDefault: false, context: person("ann", "email", "ann@example.com"), value: true, variant: "on", reason: "TARGETING_MATCH"},
	{key: "staff", kind: boolean, byDefault: true, context: person("ann", "email", "ann@example.org"), value: false, variant: "off", reason: "DEFAULT"},
	{key: "staff", kind: boolean, byDefault: true, context: person("ann"), value: false, variant: "off", reason: "DEFAULT"},
	{key: "beta", kind: text, byDefault: "d", context: person("ann", "app", map[string]any{"version": "v2.1"}), value: "new", variant: "true", reason: "TARGETING_MATCH"},
	{key: "beta", kind: text, byDefault: "d", context: person("ann", "app", map[string]any{"version": "2.1.0-rc.1"}), value: "old", variant: "false", reason: "TARGETING_MATCH"},
	{key: "self", kind: text, byDefault: "d", context: person("ann"), value: "yes", variant: "self", reason: "TARGETING_MATCH"},
	// Of murmur3_32("shareann") and so on the thirds, worked out with imurmurhash.
	{key: "share", kind: text, byDefault: "d", context: person("bob"), value: "A", variant: "a", reason: "TARGETING_MATCH"},
	{key: "share", kind: text, byDefault: "d", context: person("ann"), value: "B", variant: "b", reason: "TARGETING_MATCH"},
	{key: "share", kind: text, byDefault: "d", context: person("dave"), value: "C", variant: "c", reason: "TARGETING_MATCH"},
	{key: "share", kind: text, byDefault: "d", context: map[string]any{"email": "x"}, value: "A", variant: "a", reason: "DEFAULT"},
	{key: "tier", kind: integer, byDefault: 7.0, context: person("ann", "tier", "gold"), value: 2, variant: "gold", reason: "TARGETING_MATCH"},
	{key: "tier", kind: integer, byDefault: 7.0, context: person("ann"), value: 1, variant: "pro", reason: "DEFAULT"},
	{key: "tier", kind: integer, byDefault: 7.0, context: person("ann", "tier", "lead"), reason: "ERROR", code: "GENERAL"},
	{key: "who", kind: text, byDefault: "d", context: person("ann"), value: "A", variant: "ann", reason: "TARGETING_MATCH"},
	{key: "who", kind: text, byDefault: "d", context: person("bob"), value: "O", variant: "other", reason: "DEFAULT"},
}
