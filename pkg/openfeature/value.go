package openfeature

import (
	"encoding/json"
	"math"
	"time"

	of "github.com/open-feature/go-sdk/openfeature"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/pkg/client"
)

// fewAttributes is up to how many attributes are converted on the stack.
const fewAttributes = 16

// appendAttributes converts a context to attributes. What has no JSON form is left
// out, so that rules see it as missing.
func appendAttributes(to []client.Attribute, about of.FlattenedContext) []client.Attribute {
	for key, v := range about {
		if value, ok := valueOf(v, 1); ok {
			to = append(to, client.Attribute{Key: key, Value: value})
		}
	}
	return to
}

// valueOf returns the value that v has as JSON, nested in depth lists and objects;
// false if it has none or goes too deep. Times are strings as RFC 3339 has them.
func valueOf(v any, depth int) (client.Value, bool) {
	switch v := v.(type) {
	case nil:
		return client.Value{}, true
	case string:
		return flags.String(v), true
	case bool:
		return flags.Bool(v), true
	case int:
		return flags.Int(int64(v)), true
	case int8:
		return flags.Int(int64(v)), true
	case int16:
		return flags.Int(int64(v)), true
	case int32:
		return flags.Int(int64(v)), true
	case int64:
		return flags.Int(v), true
	case uint:
		return unsigned(uint64(v)), true
	case uint8:
		return flags.Int(int64(v)), true
	case uint16:
		return flags.Int(int64(v)), true
	case uint32:
		return flags.Int(int64(v)), true
	case uint64:
		return unsigned(v), true
	case float64:
		return flags.Float(v), !math.IsNaN(v) && !math.IsInf(v, 0)
	case time.Time:
		return flags.String(v.Format(time.RFC3339Nano)), true
	case []any:
		return listOf(v, depth)
	case []string:
		return listOf(v, depth)
	case map[string]any:
		return objectOf(v, depth)
	case map[string]string:
		return objectOf(v, depth)
	default:
		return encoded(v)
	}
}

func unsigned(n uint64) client.Value {
	if n > math.MaxInt64 {
		return flags.Float(float64(n))
	}
	return flags.Int(int64(n))
}

// listOf converts a list. Elements without a JSON form are null, so that the others
// keep their places.
func listOf[T any](list []T, depth int) (client.Value, bool) {
	if depth > document.MaxDepth {
		return client.Value{}, false
	}
	elements := make([]client.Value, len(list))
	for i, v := range list {
		if value, ok := valueOf(v, depth+1); ok {
			elements[i] = value
		}
	}
	return flags.List(elements...), true
}

func objectOf[T any](m map[string]T, depth int) (client.Value, bool) {
	if depth > document.MaxDepth {
		return client.Value{}, false
	}
	members := make([]client.Attribute, 0, len(m))
	for key, v := range m {
		if value, ok := valueOf(v, depth+1); ok {
			members = append(members, client.Attribute{Key: key, Value: value})
		}
	}
	return flags.Object(members...), true
}

// encoded converts what only package json knows how to. Methods that panic have no
// JSON form.
func encoded(v any) (value client.Value, ok bool) {
	defer func() {
		if recover() != nil {
			value, ok = client.Value{}, false
		}
	}()
	text, err := json.Marshal(v)
	if err != nil {
		return client.Value{}, false
	}
	value, err = flags.ParseValue(text)
	return value, err == nil
}

// plain returns a value as package json would decode it.
func plain(v client.Value) any {
	if s, ok := v.AsString(); ok {
		return s
	}
	if b, ok := v.AsBool(); ok {
		return b
	}
	if f, ok := v.AsFloat(); ok {
		return f
	}
	if o, ok := object(v); ok {
		return o
	}
	if elements, ok := v.Elements(); ok {
		list := make([]any, len(elements))
		for i, e := range elements {
			list[i] = plain(e)
		}
		return list
	}
	return nil
}

// object returns an object as a map; false if the value is none.
func object(v client.Value) (any, bool) {
	members, ok := v.Members()
	if !ok {
		return nil, false
	}
	m := make(map[string]any, len(members))
	for _, member := range members {
		m[member.Key] = plain(member.Value)
	}
	return m, true
}
