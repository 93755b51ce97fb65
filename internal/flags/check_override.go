package flags

import (
	"strings"

	"github.com/holdfast-dev/holdfast/internal/schema"
)

func checkOverride(f schema.Fields) {
	if form, ok := f.OneOf("an override", "mode", "flag", "breaker", "fault"); ok {
		checkOverrideForm(f, form)
	}
	if scope, ok := f.Child("scope"); ok {
		checkScope(scope)
	}
}

func checkOverrideForm(f schema.Fields, form string) {
	switch form {
	case "mode":
		f.Only("mode", "level", "scope")
		f.Require("level")
		f.Name("mode")
		if level, ok := f.Name("level"); ok && strings.EqualFold(level, Normal) {
			f.Add(f.At("level"), "%q changes nothing, as the most degraded level wins; end the mode's override instead", Normal)
		}
	case "flag":
		f.Only("flag", "variant", "scope")
		f.Require("variant")
		f.Name("flag")
		f.Text("variant")
	case "breaker":
		f.Only("breaker", "hold", "method", "scope")
		f.Require("hold")
		f.Name("breaker")
		f.Choice("hold", "open", "closed")
		if method, ok := f.Text("method"); ok {
			if err := checkMethodPattern(method); err != nil {
				f.Add(f.At("method"), "%v", err)
			} else if strings.HasSuffix(method, "*") {
				f.Add(f.At("method"), "%q is a pattern; a breaker belongs to one method, or to the dependency without one", method)
			}
		}
	case "fault":
		f.Only("fault", "scope")
		if fault, ok := f.Child("fault"); ok && len(fault.Members) == 0 {
			fault.Add(fault.Path, "is empty")
		}
	}
}

func checkScope(scope schema.Fields) {
	scope.Only("selector", "percent")
	if len(scope.Members) == 0 {
		scope.Add(scope.Path, "is empty; leave it out for every instance")
	}
	if s, ok := scope.Text("selector"); ok {
		if _, err := ParseSelector(s); err != nil {
			scope.Add(scope.At("selector"), "%v", err)
		} else if strings.Contains(s, "*") {
			scope.Add(scope.At("selector"), "%q holds a *, which stands for itself only; list the values: service in (a,b)", s)
		}
	}
	if percent, ok := scope.Number("percent"); ok && (percent < 0 || percent > 100) {
		scope.Add(scope.At("percent"), "is %v, but must be from 0 to 100", percent)
	}
}
