package flags

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// Action is what an effect does with calls.
type Action uint8

// The actions, in the order in which they are tried for a call: what sheds it,
// then what can answer it, then what refuses it.
const (
	Shed Action = iota + 1
	Cache
	Fallback
	Reject
)

// actionNames are the words of definitions.
var actionNames = map[string]Action{"shed": Shed, "cache": Cache, "fallback": Fallback, "reject": Reject} //nolint:gochecknoglobals // a table

// String returns the word of definitions, such as "reject".
func (a Action) String() string {
	for name, action := range actionNames {
		if action == a {
			return name
		}
	}
	return "none"
}

// Side is where an effect on calls is enforced.
type Side uint8

// The sides.
const (
	ClientSide Side = iota + 1
	ServerSide
)

// String returns "client" or "server".
func (s Side) String() string {
	if s == ClientSide {
		return "client"
	}
	return "server"
}

// MethodEffect is what a level does with some calls. It is immutable.
type MethodEffect struct {
	Action Action
	Side   Side
	// Methods are patterns: "/package.Service/Method", "/package.Service/*" or "*".
	Methods []string
	// Operations are names given to client.Do.
	Operations []string
	// SideEffects chooses every method that is not declared NO_SIDE_EFFECTS.
	SideEffects bool
	// Except are patterns of methods that are not meant.
	Except []string

	// Code is the name of the gRPC code of a Reject, Message its text, and
	// RetryAfter when to try again; 0 if nothing is said about that.
	Code       string
	Message    string
	RetryAfter time.Duration
	// Chain names the functions of a Fallback; empty for those of the method.
	Chain string
	// MaxAge is how old an answer from the Cache may be, Vary the metadata that
	// tells answers apart.
	MaxAge time.Duration
	Vary   []string
	// Percent is the share of calls that Shed refuses.
	Percent float64

	// By is what the effect comes from, such as "mode/storefront=read-only", and
	// Revision when that was decided.
	By       string
	Revision uint64
}

// Matches tells whether the effect is about a method, which is declared
// NO_SIDE_EFFECTS or not. It does not look at the side. A Cache is about a method
// with side effects only where that is named: no pattern may have a write answered
// by an earlier one's reply.
func (e *MethodEffect) Matches(method string, noSideEffects bool) bool {
	if e.Action == Cache && !noSideEffects {
		return slices.Contains(e.Methods, method) && !slices.ContainsFunc(e.Except, func(p string) bool { return matches(p, method) })
	}
	if !slices.ContainsFunc(e.Methods, func(pattern string) bool { return matches(pattern, method) }) &&
		(!e.SideEffects || noSideEffects) {
		return false
	}
	return !slices.ContainsFunc(e.Except, func(pattern string) bool { return matches(pattern, method) })
}

// MatchesOperation tells whether the effect is about a named operation.
func (e *MethodEffect) MatchesOperation(name string) bool { return slices.Contains(e.Operations, name) }

func matches(pattern, method string) bool {
	if pattern == "*" || pattern == method {
		return true
	}
	service, all := strings.CutSuffix(pattern, "*")
	return all && strings.HasPrefix(method, service)
}

// mode is a compiled mode.
type mode struct {
	name     string
	revision uint64
	levels   []level
}

// level is what one level adds to those before it.
type level struct {
	name    string
	forces  []variantForce
	patches []policyPatch
	methods []MethodEffect
}

type variantForce struct{ flag, variant string }

type policyPatch struct {
	policy string
	patch  []byte
}

// rank returns the number of a level, from 1; 0 if there is none of that name.
func (m *mode) rank(name string) int {
	return 1 + slices.IndexFunc(m.levels, func(l level) bool { return l.name == name })
}

// modeSpec is the definition of a mode as JSON.
type modeSpec struct {
	Description string `json:"description"`
	Levels      []struct {
		Name        string       `json:"name"`
		Description string       `json:"description"`
		Effects     []effectSpec `json:"effects"`
	} `json:"levels"`
}

type effectSpec struct {
	Flag    string          `json:"flag"`
	Variant string          `json:"variant"`
	Policy  string          `json:"policy"`
	Patch   json.RawMessage `json:"patch"`

	Action      string   `json:"action"`
	Methods     []string `json:"methods"`
	Operations  []string `json:"operations"`
	SideEffects bool     `json:"side_effects"`
	Except      []string `json:"except"`
	Side        string   `json:"side"`
	Code        string   `json:"code"`
	Message     string   `json:"message"`
	RetryAfter  duration `json:"retry_after"`
	Fallback    string   `json:"fallback"`
	MaxAge      duration `json:"max_age"`
	Vary        []string `json:"vary"`
	Percent     float64  `json:"percent"`
}

// duration is text such as "1m30s" in definitions.
type duration time.Duration

// UnmarshalJSON reads the text.
func (d *duration) UnmarshalJSON(src []byte) error {
	var text string
	if err := json.Unmarshal(src, &text); err != nil {
		return fmt.Errorf("read duration: %w", err)
	}
	parsed, err := time.ParseDuration(text)
	*d = duration(parsed)
	if err != nil {
		return fmt.Errorf("read duration: %w", err)
	}
	return nil
}

// compileMode compiles a definition that Validator accepts; it fails for others.
func compileMode(r *document.Resource) (*mode, error) {
	var spec modeSpec
	decoder := json.NewDecoder(bytes.NewReader(r.Spec))
	decoder.DisallowUnknownFields() // they may narrow what an effect is about
	if err := decoder.Decode(&spec); err != nil {
		return nil, fmt.Errorf("read definition: %w", err)
	}
	m := &mode{name: r.Name, revision: r.ModRevision, levels: make([]level, len(spec.Levels))}
	for i, src := range spec.Levels {
		l := level{name: src.Name}
		for j, e := range src.Effects {
			switch {
			case e.Flag != "":
				l.forces = append(l.forces, variantForce{e.Flag, e.Variant})
			case e.Policy != "":
				l.patches = append(l.patches, policyPatch{e.Policy, e.Patch})
			default:
				effect, err := e.method()
				if err != nil {
					return nil, fmt.Errorf("levels[%d].effects[%d]: %w", i, j, err)
				}
				l.methods = append(l.methods, effect)
			}
		}
		m.levels[i] = l
	}
	return m, nil
}

// method returns the effect with the defaults of its action.
func (e *effectSpec) method() (MethodEffect, error) {
	action, ok := actionNames[e.Action]
	if !ok {
		return MethodEffect{}, fmt.Errorf("unknown action %q", e.Action)
	}
	m := MethodEffect{
		Action: action, Methods: e.Methods, Operations: e.Operations, SideEffects: e.SideEffects, Except: e.Except,
		Code: e.Code, Message: e.Message, RetryAfter: time.Duration(e.RetryAfter), Chain: e.Fallback,
		MaxAge: time.Duration(e.MaxAge), Vary: e.Vary, Percent: e.Percent,
	}
	if action == Reject && m.Code == "" {
		m.Code = "UNAVAILABLE"
	}
	switch {
	case e.Side == "client", e.Side == "" && (action == Fallback || action == Cache):
		m.Side = ClientSide
	default:
		m.Side = ServerSide
	}
	return m, nil
}

// Recording tells that a level of a mode may answer calls from what was recorded.
type Recording struct {
	// Vary is the metadata that tells answers apart, sorted.
	Vary []string
	// MaxAge is how old an answer may be at most.
	MaxAge time.Duration
}
