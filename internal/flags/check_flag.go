package flags

import (
	"maps"
	"slices"
	"strings"
)

// flagKeys are the keys of a flag that mean something.
var flagKeys = []string{"state", "variants", "defaultVariant", "targeting", "metadata"} //nolint:gochecknoglobals // a table

func checkFlag(f fields) {
	for _, name := range f.names() {
		if slices.Contains(flagKeys, name) {
			continue
		}
		switch near, ok := nearest(name, flagKeys); {
		case strings.HasPrefix(name, "$"):
			f.add(f.at(name), "keys that begin with $ belong to a whole set of flags, not to one flag")
		case ok:
			f.add(f.at(name), "unknown key; did you mean %q?", near)
		}
	}
	f.require("state", "variants")
	f.choice("state", "ENABLED", "DISABLED")
	if variants, ok := f.child("variants"); ok {
		checkVariants(variants)
		checkDefaultVariant(f, variants)
	}
	if f.members["targeting"] != nil {
		f.child("targeting")
	}
	if metadata, ok := f.child("metadata"); ok {
		checkMetadata(metadata)
	}
}

func checkVariants(variants fields) {
	if len(variants.members) == 0 {
		variants.add(variants.path, "is empty; a flag has at least one variant")
		return
	}
	first, firstName := "", ""
	for _, name := range variants.names() {
		kind := typeName(variants.members[name])
		switch {
		case kind == "null" || kind == "an array":
			variants.add(variants.at(name), "is %s, but must be a boolean, a string, a number or an object", kind)
		case first == "":
			first, firstName = kind, name
		case kind != first:
			variants.add(variants.at(name), "is %s, but %q is %s; all variants have one type", kind, firstName, first)
		}
	}
}

func checkDefaultVariant(f, variants fields) {
	switch value := f.members["defaultVariant"].(type) {
	case nil:
	case string:
		if value != "" && !variants.has(value) {
			names := slices.Sorted(maps.Keys(variants.members))
			f.add(f.at("defaultVariant"), "%q is not among the variants%s", value, didYouMean(value, names))
		}
	default:
		f.add(f.at("defaultVariant"), "is %s, but must be the name of a variant or null", typeName(value))
	}
}

func checkMetadata(metadata fields) {
	for _, name := range metadata.names() {
		switch kind := typeName(metadata.members[name]); kind {
		case "a string", "a number", "a boolean":
		default:
			metadata.add(metadata.at(name), "is %s, but must be a string, a number or a boolean", kind)
		}
	}
}
