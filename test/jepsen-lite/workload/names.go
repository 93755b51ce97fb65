package workload

import (
	"encoding/json"
	"fmt"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// What clients and SDK processes have in common.
const (
	// Mode is the mode that clients degrade; Levels are its levels from mild to severe.
	Mode = "storefront"
	// Dependency is what SDK processes call, under the policy of this name.
	Dependency = "payments"
)

// DecisionKeys are the flags that SDK processes decide by.
func DecisionKeys() []string {
	keys := make([]string, 0, 10)
	for i := range 8 {
		keys = append(keys, fmt.Sprintf("flag-%d", i))
	}
	pair := PairKeys()
	return append(keys, pair[:]...)
}

// PairKeys are the two of them that are always written together.
func PairKeys() [2]string { return [2]string{"pair-a", "pair-b"} }

// levels of the mode, from mild to severe.
func levels() [2]string { return [2]string{"read-only", "closed"} }

// The nodes that clients run on: a fabric gives each an address.
const (
	NodePinned  = "c1" // clients that stay with one server each
	NodeRoaming = "c2" // clients that try one server after the other
	NodeProbes  = "c3"
	NodeWatches = "c4"
)

// Nodes are all of them.
func Nodes() []string { return []string{NodePinned, NodeRoaming, NodeProbes, NodeWatches} }

// definition is a flag that has one value.
func definition(value string) []byte {
	return fmt.Appendf(nil, `{"defaultVariant":"is","state":"ENABLED","variants":{"is":%q}}`, value)
}

// valueOf reads it; what is no such definition is its own value, so that it matches
// nothing that was written.
func valueOf(spec []byte) string {
	var flag struct {
		Variants map[string]string `json:"variants"`
	}
	if err := json.Unmarshal(spec, &flag); err != nil || flag.Variants["is"] == "" {
		return "unreadable: " + string(spec)
	}
	return flag.Variants["is"]
}

func flagKey(name string) *holdfastv1.ResourceKey {
	return &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_FLAG, Name: name}
}

// cellKey names a flag as the history does: with its namespace, if that is another
// than the default one.
func cellKey(key *holdfastv1.ResourceKey) string {
	if ns := key.GetNamespace(); ns != "" && ns != "default" {
		return ns + ":" + key.GetName()
	}
	return key.GetName()
}

func put(name, value string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Action: &holdfastv1.Operation_Put{
		Put: &holdfastv1.Put{Key: flagKey(name), Spec: definition(value)},
	}}
}

func remove(name string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Action: &holdfastv1.Operation_Delete{Delete: &holdfastv1.Delete{Key: flagKey(name)}}}
}

// modeSpec has a level that SDK processes need not act on, and one that refuses an
// operation.
func modeSpec() []byte {
	names := levels()
	return fmt.Appendf(nil, `{"levels":[{"name":%q},{"name":%q,"effects":[{"action":"reject","operations":["checkout"]}]}]}`, names[0], names[1])
}

// policySpec lets breakers open and recover within the seconds that a fault lasts.
const policySpec = `{
	"circuit_breaker": {"failure_threshold": 5, "volume_threshold": 10, "failure_ratio": 0.5, "slow_after": "200ms", "timeout": "1s", "max_timeout": "4s", "ramp_step": "300ms"},
	"timeouts": {"call": "300ms"}
}`
