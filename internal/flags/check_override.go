package flags

import "strings"

func checkOverride(f fields) {
	if form, ok := f.oneOf("an override", "mode", "flag", "breaker", "fault"); ok {
		checkOverrideForm(f, form)
	}
	if scope, ok := f.child("scope"); ok {
		checkScope(scope)
	}
}

func checkOverrideForm(f fields, form string) {
	switch form {
	case "mode":
		f.only("mode", "level", "scope")
		f.require("level")
		f.name("mode")
		if level, ok := f.name("level"); ok && strings.EqualFold(level, Normal) {
			f.add(f.at("level"), "%q changes nothing, as the most degraded level wins; end the mode's override instead", Normal)
		}
	case "flag":
		f.only("flag", "variant", "scope")
		f.require("variant")
		f.name("flag")
		f.text("variant")
	case "breaker":
		f.only("breaker", "hold", "method", "scope")
		f.require("hold")
		f.name("breaker")
		f.choice("hold", "open", "closed")
		if method, ok := f.text("method"); ok {
			if err := checkMethodPattern(method); err != nil {
				f.add(f.at("method"), "%v", err)
			} else if strings.HasSuffix(method, "*") {
				f.add(f.at("method"), "%q is a pattern; a breaker belongs to one method, or to the dependency without one", method)
			}
		}
	case "fault":
		f.only("fault", "scope")
		if fault, ok := f.child("fault"); ok && len(fault.members) == 0 {
			fault.add(fault.path, "is empty")
		}
	}
}

func checkScope(scope fields) {
	scope.only("selector", "percent")
	if len(scope.members) == 0 {
		scope.add(scope.path, "is empty; leave it out for every instance")
	}
	if s, ok := scope.text("selector"); ok {
		if _, err := ParseSelector(s); err != nil {
			scope.add(scope.at("selector"), "%v", err)
		}
	}
	if percent, ok := scope.number("percent"); ok && (percent < 0 || percent > 100) {
		scope.add(scope.at("percent"), "is %v, but must be from 0 to 100", percent)
	}
}
