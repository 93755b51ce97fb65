package flags

import (
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/internal/schema"
)

const (
	// Normal is the name of level 0, which every mode has.
	Normal = "normal"
	// MaxLevels is how many levels a mode may have besides Normal.
	MaxLevels = 64
)

func checkMode(f schema.Fields) {
	f.Only("description", "levels")
	f.Description("description")
	f.Require("levels")
	levels, ok := f.Array("levels")
	switch {
	case !ok:
		return
	case len(levels) == 0:
		f.Add(f.At("levels"), "is empty; a mode has at least one level besides %q", Normal)
	case len(levels) > MaxLevels:
		f.Add(f.At("levels"), "has %d levels; at most %d are allowed", len(levels), MaxLevels)
		return
	}
	seen := map[string]int{}
	for i, value := range levels {
		level, ok := f.Object(f.At("levels").Index(i), value)
		if !ok {
			continue
		}
		checkLevel(level)
		name, ok := level.Members["name"].(string)
		if first, twice := seen[name]; ok && twice {
			level.Add(level.At("name"), "%q is the name of levels[%d] as well", name, first)
		} else if ok && name != "" {
			seen[name] = i
		}
	}
}

func checkLevel(level schema.Fields) {
	level.Only("name", "description", "effects")
	level.Description("description")
	level.Require("name")
	if name, ok := level.Name("name"); ok {
		switch {
		case strings.EqualFold(name, Normal):
			level.Add(level.At("name"), "%q is level 0 of every mode and is not listed", Normal)
		case strings.Trim(name, "0123456789") == "":
			// Tools take the number of a level in place of its name.
			level.Add(level.At("name"), "%q is a number; a name has something else as well", name)
		}
	}
	effects, _ := level.Array("effects")
	for i, value := range effects {
		if effect, ok := level.Object(level.At("effects").Index(i), value); ok {
			checkEffect(effect)
		}
	}
}

func checkEffect(effect schema.Fields) {
	form, ok := effect.OneOf("an effect", "flag", "action", "policy")
	if !ok {
		return
	}
	switch form {
	case "flag":
		effect.Only("flag", "variant")
		effect.Require("variant")
		effect.Name("flag")
		effect.Text("variant")
	case "policy":
		effect.Only("policy", "patch")
		effect.Require("patch")
		effect.Name("policy")
		if patch, ok := effect.Child("patch"); ok {
			policy.CheckPatch(patch)
		}
	case "action":
		checkAction(effect)
	}
}

func checkAction(effect schema.Fields) {
	action, ok := effect.Choice("action", "reject", "fallback", "cache", "shed")
	if !ok {
		return
	}
	known := []string{"action", "methods", "operations", "side_effects", "except", "side"}
	switch action {
	case "reject":
		effect.Only(append(known, "code", "message", "retry_after")...)
		effect.Choice("code", policy.ErrorNames()...)
		effect.Text("message")
		effect.Duration("retry_after")
	case "fallback":
		effect.Only(append(known, "fallback")...)
		effect.Text("fallback")
	case "cache":
		effect.Only(append(known, "max_age", "vary")...)
		effect.Require("max_age")
		effect.Duration("max_age")
		effect.Texts("vary", checkMetadataKey)
	case "shed":
		effect.Only(append(known, "percent")...)
		effect.Require("percent")
		if percent, ok := effect.Number("percent"); ok && (percent <= 0 || percent > 100) {
			effect.Add(effect.At("percent"), "is %v, but must be more than 0 and at most 100", percent)
		}
	}
	side, _ := effect.Choice("side", "client", "server")
	checkMatch(effect)
	switch {
	case side == "server" && effect.Has("operations"):
		effect.Add(effect.At("side"), "operations are names that clients give to what they do; leave the side out")
	case action == "cache" && effect.Members["side_effects"] == true:
		effect.Add(effect.At("side_effects"), "no call with side effects is answered from a cache by a pattern; name the methods")
	}
}

func checkMatch(effect schema.Fields) {
	if !effect.Has("methods") && !effect.Has("operations") && !effect.Has("side_effects") {
		effect.Add(effect.Path, "matches no call; it needs one of the keys methods, operations, side_effects")
	}
	effect.Texts("methods", checkMethodPattern)
	effect.Texts("except", checkMethodPattern)
	effect.Texts("operations", document.CheckName)
	if value, present := effect.Members["side_effects"]; present && value != true {
		effect.Add(effect.At("side_effects"), "must be true; leave it out otherwise")
	}
}

// checkMethodPattern accepts a method, all methods of a service, and "*".
func checkMethodPattern(s string) error {
	if s == "*" {
		return nil
	}
	return schema.CheckMethodPattern(s)
}

// checkMetadataKey accepts the names that gRPC metadata can have.
func checkMetadataKey(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	for _, r := range s {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_.", r) {
			return fmt.Errorf("%q is not a name of metadata: %q is not a lower-case letter, a digit, '-', '_' or '.'", s, r)
		}
	}
	return nil
}
