package flags

import (
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-dev/holdfast/internal/document"
)

const (
	// Normal is the name of level 0, which every mode has.
	Normal = "normal"
	// MaxLevels is how many levels a mode may have besides Normal.
	MaxLevels = 64
)

// errorCodes are the gRPC codes that a call can be rejected with.
var errorCodes = []string{ //nolint:gochecknoglobals // a table
	"CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
	"UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

func checkMode(f fields) {
	f.only("description", "levels")
	f.description("description")
	f.require("levels")
	levels, ok := f.array("levels")
	switch {
	case !ok:
		return
	case len(levels) == 0:
		f.add(f.at("levels"), "is empty; a mode has at least one level besides %q", Normal)
	case len(levels) > MaxLevels:
		f.add(f.at("levels"), "has %d levels; at most %d are allowed", len(levels), MaxLevels)
		return
	}
	seen := map[string]int{}
	for i, value := range levels {
		level, ok := f.object(f.at("levels").Index(i), value)
		if !ok {
			continue
		}
		checkLevel(level)
		name, ok := level.members["name"].(string)
		if first, twice := seen[name]; ok && twice {
			level.add(level.at("name"), "%q is the name of levels[%d] as well", name, first)
		} else if ok && name != "" {
			seen[name] = i
		}
	}
}

func checkLevel(level fields) {
	level.only("name", "description", "effects")
	level.description("description")
	level.require("name")
	if name, ok := level.name("name"); ok {
		switch {
		case strings.EqualFold(name, Normal):
			level.add(level.at("name"), "%q is level 0 of every mode and is not listed", Normal)
		case strings.Trim(name, "0123456789") == "":
			// Tools take the number of a level in place of its name.
			level.add(level.at("name"), "%q is a number; a name has something else as well", name)
		}
	}
	effects, _ := level.array("effects")
	for i, value := range effects {
		if effect, ok := level.object(level.at("effects").Index(i), value); ok {
			checkEffect(effect)
		}
	}
}

func checkEffect(effect fields) {
	form, ok := effect.oneOf("an effect", "flag", "action", "policy")
	if !ok {
		return
	}
	switch form {
	case "flag":
		effect.only("flag", "variant")
		effect.require("variant")
		effect.name("flag")
		effect.text("variant")
	case "policy":
		effect.only("policy", "patch")
		effect.require("patch")
		effect.name("policy")
		if patch, ok := effect.child("patch"); ok {
			checkPolicy(patch)
		}
	case "action":
		checkAction(effect)
	}
}

func checkAction(effect fields) {
	action, ok := effect.choice("action", "reject", "fallback", "cache", "shed")
	if !ok {
		return
	}
	known := []string{"action", "methods", "operations", "side_effects", "except", "side"}
	switch action {
	case "reject":
		effect.only(append(known, "code", "message", "retry_after")...)
		effect.choice("code", errorCodes...)
		effect.text("message")
		effect.duration("retry_after")
	case "fallback":
		effect.only(append(known, "fallback")...)
		effect.text("fallback")
	case "cache":
		effect.only(append(known, "max_age", "vary")...)
		effect.require("max_age")
		effect.duration("max_age")
		effect.texts("vary", checkMetadataKey)
	case "shed":
		effect.only(append(known, "percent")...)
		effect.require("percent")
		if percent, ok := effect.number("percent"); ok && (percent <= 0 || percent > 100) {
			effect.add(effect.at("percent"), "is %v, but must be more than 0 and at most 100", percent)
		}
	}
	effect.choice("side", "client", "server")
	checkMatch(effect)
}

func checkMatch(effect fields) {
	if !effect.has("methods") && !effect.has("operations") && !effect.has("side_effects") {
		effect.add(effect.path, "matches no call; it needs one of the keys methods, operations, side_effects")
	}
	effect.texts("methods", checkMethodPattern)
	effect.texts("except", checkMethodPattern)
	effect.texts("operations", document.CheckName)
	if value, present := effect.members["side_effects"]; present && value != true {
		effect.add(effect.at("side_effects"), "must be true; leave it out otherwise")
	}
}

// checkMethodPattern accepts "/package.Service/Method", "/package.Service/*"
// and "*".
func checkMethodPattern(s string) error {
	if s == "*" {
		return nil
	}
	rest, slash := strings.CutPrefix(s, "/")
	service, method, ok := strings.Cut(rest, "/")
	if !slash || !ok || service == "" || method == "" || strings.ContainsAny(method, "/") {
		return fmt.Errorf(`%q is not a method; write "/package.Service/Method", "/package.Service/*" or "*"`, s)
	}
	if strings.Contains(service, "*") || (method != "*" && strings.Contains(method, "*")) {
		return fmt.Errorf(`%q has a * that is not the whole method; write "/package.Service/*" or "*"`, s)
	}
	if strings.ContainsAny(s, " \t\n") {
		return fmt.Errorf("%q holds white space", s)
	}
	return nil
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
