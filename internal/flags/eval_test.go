package flags

import (
	"testing"
)

const benchFlags = `{"plain":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on"},
"ends":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off","targeting":{"if":[{"ends_with":[{"var":"email"},"@example.com"]},"on",null]}},
"nested":{"state":"ENABLED","variants":{"a":"1","b":"2","c":"3"},"defaultVariant":"c","targeting":{"if":[{"and":[{"==":[{"var":"plan"},"gold"]},{">":[{"var":"age"},18]}]},{"if":[{"in":[{"var":"country"},["CH","DE","FR"]]},"a","b"]},"c"]}},
"frac":{"state":"ENABLED","variants":{"a":"1","b":"2","c":"3"},"defaultVariant":"c","targeting":{"fractional":[["a",50],["b",25],["c",25]]}},
"cat":{"state":"ENABLED","variants":{"a":"1","b":"2","c":"3"},"defaultVariant":"c","targeting":{"fractional":[{"cat":[{"var":"$flagd.flagKey"},{"var":"email"}]},["a",50],["b",25],["c",25]]}},
"list":{"state":"ENABLED","variants":{"true":true,"false":false},"defaultVariant":"true","targeting":{"some":[{"map":[{"filter":[{"var":"list"},{">":[{"var":""},1]}]},{"+":[{"var":""},1]}]},{"==":[{"var":""},4]}]}}
}`

func BenchmarkEvaluate(b *testing.B) {
	all, err := ParseAttributes([]byte(benchFlags))
	if err != nil {
		b.Fatal(err)
	}
	email, list := "ada@example.com", []Value{Int(1), Int(2), Int(3)}
	for _, a := range all {
		f, violations := Compile(a.Key, a.Value.AppendJSON(nil))
		if violations != nil {
			b.Fatal(violations)
		}
		b.Run(a.Key, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d := f.Evaluate(0, Attribute{TargetingKey, String("user-1234")}, Attribute{"email", String(email)}, Attribute{"plan", String("gold")},
					Attribute{"age", Int(20)}, Attribute{"country", String("DE")}, Attribute{"list", List(list...)})
				if d.Variant == nil {
					b.Fatal(d)
				}
			}
		})
	}
}
