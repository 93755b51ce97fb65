package flags

// Reason tells why a flag has its value, in the words of OpenFeature.
type Reason uint8

// The reasons. The zero value is Error, so that what was never decided is one.
const (
	Error          Reason = iota // the caller's default applies, see ErrorCode
	Static                       // there are no rules, or an override or a mode's level decides
	Default                      // no rule decided; without a default variant the caller's default applies
	TargetingMatch               // a rule decided
	Disabled                     // the flag is off; the caller's default applies
)

// String returns the word that goes over the wire, such as "TARGETING_MATCH".
func (r Reason) String() string {
	switch r {
	case Static:
		return "STATIC"
	case Default:
		return "DEFAULT"
	case TargetingMatch:
		return "TARGETING_MATCH"
	case Disabled:
		return "DISABLED"
	case Error:
		return "ERROR"
	default:
		return "UNKNOWN"
	}
}

// ErrorCode tells what went wrong where the reason is Error.
type ErrorCode uint8

// The codes. The zero value says that nothing is wrong.
const (
	NoError      ErrorCode = iota
	FlagNotFound           // there is no such flag
	ParseError             // the definition cannot be evaluated
	TypeMismatch           // the value has another type than was asked for
	General                // the rules name a variant that does not exist
)

// String returns the word that goes over the wire, such as "FLAG_NOT_FOUND";
// empty for NoError.
func (c ErrorCode) String() string {
	switch c {
	case NoError:
		return ""
	case FlagNotFound:
		return "FLAG_NOT_FOUND"
	case ParseError:
		return "PARSE_ERROR"
	case TypeMismatch:
		return "TYPE_MISMATCH"
	case General:
		return "GENERAL"
	default:
		return "GENERAL"
	}
}

// Variant is one of a flag's values with its name. It is immutable.
type Variant struct {
	Name  string
	Value Value
	// JSON is the value as canonical JSON.
	JSON []byte
}

// Decision is what a flag is for one call. The zero value is an error without a
// code.
type Decision struct {
	// Variant is nil where the caller's default applies: the flag is disabled, has
	// no default, or there is an error.
	Variant *Variant
	Reason  Reason
	Code    ErrorCode
}
