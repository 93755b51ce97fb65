package flags

import (
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-dev/holdfast/internal/schema"
)

// flagKeys are the keys of a flag that mean something.
var flagKeys = []string{"state", "variants", "defaultVariant", "targeting", "metadata"} //nolint:gochecknoglobals // a table

func checkFlag(f schema.Fields) {
	for _, name := range f.Names() {
		if slices.Contains(flagKeys, name) {
			continue
		}
		switch near, ok := schema.Nearest(name, flagKeys); {
		case strings.HasPrefix(name, "$"):
			f.Add(f.At(name), "keys that begin with $ belong to a whole set of flags, not to one flag")
		case ok:
			f.Add(f.At(name), "unknown key; did you mean %q?", near)
		}
	}
	if !f.Has("state") {
		f.Add(f.At("state"), "is missing: ENABLED or DISABLED")
	}
	f.Require("variants")
	f.Choice("state", "ENABLED", "DISABLED")
	if variants, ok := f.Child("variants"); ok {
		checkVariants(variants)
		checkDefaultVariant(f, variants)
	}
	if f.Members["targeting"] != nil {
		f.Child("targeting")
	}
	if metadata, ok := f.Child("metadata"); ok {
		checkMetadata(metadata)
	}
}

func checkVariants(variants schema.Fields) {
	if len(variants.Members) == 0 {
		variants.Add(variants.Path, "is empty; a flag has at least one variant")
		return
	}
	first, firstName := "", ""
	for _, name := range variants.Names() {
		kind := schema.TypeName(variants.Members[name])
		switch {
		case kind == "null" || kind == "an array":
			variants.Add(variants.At(name), "is %s, but must be a boolean, a string, a number or an object", kind)
		case first == "":
			first, firstName = kind, name
		case kind != first:
			variants.Add(variants.At(name), "is %s, but %q is %s; all variants have one type", kind, firstName, first)
		}
	}
}

func checkDefaultVariant(f, variants schema.Fields) {
	switch value := f.Members["defaultVariant"].(type) {
	case nil:
	case string:
		if value != "" && !variants.Has(value) {
			names := slices.Sorted(maps.Keys(variants.Members))
			f.Add(f.At("defaultVariant"), "%q is not among the variants%s", value, schema.DidYouMean(value, names))
		}
	default:
		f.Add(f.At("defaultVariant"), "is %s, but must be the name of a variant or null", schema.TypeName(value))
	}
}

func checkMetadata(metadata schema.Fields) {
	metadata.Choice(fractionalKey, "v2", "v3")
	for _, name := range metadata.Names() {
		switch kind := schema.TypeName(metadata.Members[name]); kind {
		case "a string", "a number", "a boolean":
		default:
			metadata.Add(metadata.At(name), "is %s, but must be a string, a number or a boolean", kind)
		}
	}
}
