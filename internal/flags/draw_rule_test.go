package flags

// kinds are the operators that make values of a kind.
func kinds() map[string][]string {
	return map[string][]string{
		"bool":   {"==", "===", "!=", "!==", "<", "<=", ">", ">=", "!", "!!", "and", "or", "in", "all", "none", "some", "starts_with", "ends_with", "sem_ver"},
		"text":   {"cat", "substr", "if", "fractional", "reduce", "var", "var"},
		"number": {"+", "-", "*", "/", "%", "min", "max", "reduce", "if", "var", "var"},
		"list":   {"map", "filter", "merge", "missing", "missing_some", "var", "var", "if"},
		"any":    {"if", "if", "if", "fractional", "fractional", "and", "or", "bool", "text", "number", "list", "var"},
	}
}

// rule draws a rule whose value should be of a kind, nested up to depth.
func (d drawer) rule(kind string, depth int) any {
	if d.chance(25) {
		kind = d.one("bool", "text", "number", "list", "any", "nonsense")
	}
	if kind == "nonsense" {
		return d.nonsense(depth)
	}
	if depth <= 0 || kind != "any" && d.chance(3) {
		return d.leaf(kind)
	}
	if kind == "bool" && d.chance(8) {
		return d.leaf(kind)
	}
	operator := d.one(kinds()[kind]...)
	if kinds()[operator] != nil {
		return d.rule(operator, depth)
	}
	operands := d.operands(operator, kind, depth-1)
	if list, ok := operands.([]any); ok && d.chance(6) {
		operands = d.odd(list, depth-1)
	}
	return map[string]any{operator: operands}
}

// odd changes the number of operands, or their form.
func (d drawer) odd(operands []any, depth int) any {
	switch d.count(0, 4) {
	case 0:
		return append([]any{d.rule("any", depth)}, operands...)
	case 1:
		return append(operands, d.rule("any", depth))
	case 2:
		return map[string]any{"merge": []any{operands}}
	default:
		if len(operands) == 0 {
			return nil
		}
		if d.chance(2) {
			return operands[0]
		}
		return operands[:len(operands)-1]
	}
}

func (d drawer) leaf(kind string) any {
	if !d.chance(3) {
		if kind == "any" && d.chance(2) {
			return map[string]any{"var": []any{d.path(kind), d.scalar()}}
		}
		return map[string]any{"var": d.path(kind)}
	}
	switch kind {
	case "bool":
		return d.chance(2)
	case "number":
		return d.number()
	case "text":
		return d.text()
	case "list":
		return d.some("any", 0, 3, 0)
	default:
		return d.scalar()
	}
}

// nonsense draws what is no rule: what it holds may even be refused.
func (d drawer) nonsense(depth int) any {
	switch d.count(0, 5) {
	case 0:
		return map[string]any{d.one("$ref", "inn", "If", "", "val", "??", "log"): d.rule("any", depth-1)}
	case 1:
		return map[string]any{"==": []any{1.0, 1.0}, "var": d.path("any")}
	case 2:
		return map[string]any{}
	case 3:
		return []any{}
	case 4:
		return []any{d.rule("any", depth-1), d.scalar()}
	default:
		return nil
	}
}

// some draws a list of rules of a kind.
func (d drawer) some(kind string, least, most, depth int) []any {
	list := []any{}
	for range d.count(least, most) {
		list = append(list, d.rule(kind, depth))
	}
	return list
}

func (d drawer) operands(operator, kind string, depth int) any {
	switch operator {
	case "==", "===", "!=", "!==", "<", "<=", ">", ">=":
		kind := d.one("text", "number", "number", "any", "bool")
		if d.chance(4) {
			return d.some(kind, 3, 4, depth)
		}
		return d.some(kind, 2, 2, depth)
	case "!", "!!":
		return d.some(d.one("any", "bool", "list"), 1, 1, depth)
	case "and", "or":
		return d.some(d.one("bool", "any"), 0, 4, depth)
	case "if":
		if d.chance(4) {
			return d.chain()
		}
		list := []any{}
		for range d.count(0, 3) {
			list = append(list, d.rule("bool", depth), d.rule(kind, depth))
		}
		return append(list, d.some(kind, 0, 1, depth)...)
	case "in":
		return []any{d.rule(d.one("text", "number"), depth), d.rule(d.one("text", "list"), depth)}
	case "all", "none", "some", "map", "filter", "reduce":
		return d.iteration(operator, kind, depth)
	case "starts_with", "ends_with":
		return d.some("text", 2, 2, depth)
	case "sem_ver":
		return []any{d.rule("text", depth), d.one("=", "!=", "<", "<=", ">", ">=", "^", "~", "==", "="), d.rule(d.one("text", "text", "number"), depth)}
	case "cat":
		return d.some(d.one("text", "number", "any"), 0, 4, depth)
	case "substr":
		return append(d.some("text", 1, 1, depth), d.some("number", 0, 2, depth)...)
	case "fractional":
		return d.fractional(kind, depth)
	case "missing":
		return d.paths()
	case "missing_some":
		return []any{d.rule("number", 0), d.paths()}
	case "merge":
		return d.some(d.one("list", "any"), 0, 3, depth)
	case "var":
		if d.chance(8) {
			return []any{d.rule("text", depth), d.rule(kind, depth)}
		}
		if d.chance(3) {
			return []any{d.path(kind), d.rule(kind, depth)}
		}
		return d.path(kind)
	default: // arithmetic
		return d.some("number", 0, 3, depth)
	}
}

// chain draws the branches of an "if" that all compare one attribute, or two,
// with constants.
func (d drawer) chain() []any {
	kind := d.one("text", "number", "any")
	constant := func() any {
		switch kind {
		case "text":
			return d.text()
		case "number":
			return d.number()
		default:
			return d.scalar()
		}
	}
	attributes := []any{map[string]any{"var": d.path(kind)}, map[string]any{"var": d.path(kind)}}
	list := []any{}
	for i := range d.count(1, 8) {
		attribute := attributes[d.count(0, 5)/5]
		operator := d.one("==", "===", "!=", "!==", "in", "<", ">=", "starts_with", "ends_with", "==", "in")
		operands := []any{attribute, constant()}
		switch {
		case operator == "in" && !d.chance(4):
			operands[1] = []any{constant(), constant(), constant()}
		case d.chance(4):
			operands[0], operands[1] = operands[1], operands[0]
		}
		list = append(list, map[string]any{operator: operands}, "branch "+string(rune('0'+i)))
	}
	if d.chance(2) {
		list = append(list, "else")
	}
	return list
}

func (d drawer) iteration(operator, kind string, depth int) any {
	list := []any{d.rule("list", depth)}
	switch operator {
	case "map":
		return append(list, d.rule(d.one("any", "number", "text"), depth))
	case "reduce":
		list = append(list, d.rule(kind, depth))
		return append(list, d.some(kind, 0, 1, depth)...)
	default:
		return append(list, d.rule("bool", depth))
	}
}

func (d drawer) paths() []any {
	list := []any{}
	for range d.count(0, 3) {
		list = append(list, d.path("any"))
	}
	return list
}

func (d drawer) fractional(kind string, depth int) any {
	list := []any{}
	switch d.count(0, 3) {
	case 0:
		list = append(list, map[string]any{"cat": []any{map[string]any{"var": "$flagd.flagKey"}, d.rule("text", depth)}})
	case 1:
		list = append(list, d.rule(d.one("text", "any"), depth))
		if d.chance(4) {
			list[0] = map[string]any{"cat": d.rule("list", depth)}
		}
	}
	for range d.count(1, 4) {
		switch {
		case d.chance(30):
			list = append(list, d.rule("any", depth))
		case d.chance(3):
			list = append(list, []any{d.rule(kind, depth)})
		case d.chance(6):
			list = append(list, []any{d.rule(kind, depth), d.rule("number", depth)})
		default:
			list = append(list, []any{d.rule(kind, 0), float64(d.count(0, 100))})
		}
	}
	return list
}
