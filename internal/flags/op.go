package flags

// op is what a node of a compiled rule does.
type op uint8

const (
	opConst op = iota
	opList     // a literal list with something to evaluate in it
	opVar
	opVarRoot   // var with a path of one key, outside of operators on lists, without a default
	opFlagKey   // var "$flagd.flagKey" at the root
	opTimestamp // var "$flagd.timestamp" at the root
	opMissing
	opMissingSome
	opIf
	opOr
	opAnd
	opNot
	opTruth
	opEqual
	opNotEqual
	opStrictEqual
	opStrictNotEqual
	opLess
	opLessEqual
	opGreater
	opGreaterEqual
	opAdd
	opSubtract
	opMultiply
	opDivide
	opRemainder
	opMin
	opMax
	opMap
	opFilter
	opReduce
	opAll
	opNone
	opSome
	opMerge
	opIn
	opCat
	opSubstr
	opStartsWith
	opEndsWith
	opSemver
	opFractional
)

// many is the arity of operators that take any number of operands.
const many = 1 << 30

// operator is what there is to know of an operator of the language to compile it.
type operator struct {
	op op
	// least and most are how many operands a definition may give it. Evaluation
	// copes with any number, as rules from elsewhere may have it.
	least, most int
	// lazy operators evaluate their operands themselves, so that a rule in place of
	// the list of operands is one operand.
	lazy bool
}

// operators are those of flagd's targeting schema.
var operators = map[string]operator{ //nolint:gochecknoglobals // a table, never changed
	"var":          {op: opVar, least: 1, most: 2},
	"missing":      {op: opMissing, least: 0, most: many},
	"missing_some": {op: opMissingSome, least: 2, most: 2},
	"if":           {op: opIf, least: 1, most: many, lazy: true},
	"or":           {op: opOr, least: 1, most: many, lazy: true},
	"and":          {op: opAnd, least: 1, most: many, lazy: true},
	"!":            {op: opNot, least: 1, most: 1},
	"!!":           {op: opTruth, least: 1, most: 1},
	"==":           {op: opEqual, least: 2, most: 2, lazy: true},
	"!=":           {op: opNotEqual, least: 2, most: 2, lazy: true},
	"===":          {op: opStrictEqual, least: 2, most: 2, lazy: true},
	"!==":          {op: opStrictNotEqual, least: 2, most: 2, lazy: true},
	"<":            {op: opLess, least: 2, most: 3, lazy: true},
	"<=":           {op: opLessEqual, least: 2, most: 3, lazy: true},
	">":            {op: opGreater, least: 2, most: 2, lazy: true},
	">=":           {op: opGreaterEqual, least: 2, most: 2, lazy: true},
	"+":            {op: opAdd, least: 1, most: many},
	"-":            {op: opSubtract, least: 1, most: 2},
	"*":            {op: opMultiply, least: 1, most: many},
	"/":            {op: opDivide, least: 2, most: 2},
	"%":            {op: opRemainder, least: 2, most: 2},
	"min":          {op: opMin, least: 1, most: many},
	"max":          {op: opMax, least: 1, most: many},
	"map":          {op: opMap, least: 2, most: 2, lazy: true},
	"filter":       {op: opFilter, least: 2, most: 2, lazy: true},
	"reduce":       {op: opReduce, least: 2, most: 3, lazy: true},
	"all":          {op: opAll, least: 2, most: 2, lazy: true},
	"none":         {op: opNone, least: 2, most: 2, lazy: true},
	"some":         {op: opSome, least: 2, most: 2, lazy: true},
	"merge":        {op: opMerge, least: 1, most: many},
	"in":           {op: opIn, least: 2, most: 2},
	"cat":          {op: opCat, least: 1, most: many},
	"substr":       {op: opSubstr, least: 2, most: 3},
	"starts_with":  {op: opStartsWith, least: 2, most: 2},
	"ends_with":    {op: opEndsWith, least: 2, most: 2},
	"sem_ver":      {op: opSemver, least: 3, most: 3},
	"fractional":   {op: opFractional, least: 1, most: many},
}

// node is a node of a compiled rule. Nodes are immutable.
type node struct {
	op op
	// spread is set where a rule stands in place of the list of operands, args[0]:
	// when its result is a list, the elements are the operands.
	spread bool
	// variant is, of a constant, the index of the variant that it names, or
	// noVariant or nullVariant.
	variant int32
	// value is that of a constant.
	value Value
	// attribute is set in comparisons and the like of an attribute with a constant:
	// its name.
	attribute string
	// path is that of a var with a constant key.
	path []string
	// cost is, of an operator on lists, the number of nodes of what it does with
	// each element.
	cost int
	args []node
	// set holds the elements of a constant list of strings that is the second
	// operand of "in", when it is long.
	set map[string]struct{}
	// fractional and version are what could be prepared of these operators.
	fractional *fractional
	version    *versionRange
}

const (
	noVariant   = -1
	nullVariant = -2
)
