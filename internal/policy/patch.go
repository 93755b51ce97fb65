package policy

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// errNotObject is what is wrong with a definition or patch that is no object.
var errNotObject = errors.New("it must be a JSON object")

// Patch returns a policy as a JSON merge patch (RFC 7396) changes it, in canonical
// form: members of the patch replace those of the policy, objects are merged key by
// key, null removes a key, arrays are replaced whole. An absent policy, an empty
// spec, is {}. What the keys mean is not looked at: see CheckPatch and Parse.
func Patch(spec, patch []byte) ([]byte, error) {
	target := map[string]any{}
	if len(spec) > 0 {
		var err error
		if target, err = decode(spec); err != nil {
			return nil, fmt.Errorf("read the policy: %w", err)
		}
	}
	change, err := decode(patch)
	if err != nil {
		return nil, fmt.Errorf("read the patch: %w", err)
	}
	text, err := json.Marshal(merge(target, change))
	if err != nil {
		return nil, fmt.Errorf("encode the patched policy: %w", err)
	}
	return document.Canonical(text)
}

// decode reads an object.
func decode(text []byte) (map[string]any, error) {
	canonical, err := document.Canonical(text)
	if err != nil {
		return nil, err
	}
	var value any
	// A float64 holds every number of the canonical form as it is.
	if err := json.Unmarshal(canonical, &value); err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errNotObject
	}
	return object, nil
}

// merge changes target. The objects nest as deep as document.MaxDepth at most.
func merge(target, patch map[string]any) map[string]any {
	for name, value := range patch {
		switch value := value.(type) {
		case nil:
			delete(target, name)
		case map[string]any:
			child, ok := target[name].(map[string]any)
			if !ok {
				child = map[string]any{} // also drops the nulls of the patch
			}
			target[name] = merge(child, value)
		default:
			target[name] = value
		}
	}
	return target
}
