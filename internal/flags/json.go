package flags

// ParseValue reads a JSON document. Integers that an int64 holds are integers,
// other numbers floats. It refuses what document.Canonical refuses, but not large
// numbers: a context may hold any.
func ParseValue(json []byte) (Value, error) { panic("not yet") }

// ParseAttributes reads a JSON object as attributes, sorted by key.
func ParseAttributes(json []byte) ([]Attribute, error) { panic("not yet") }

// AppendJSON appends the value as canonical JSON.
func (v Value) AppendJSON(b []byte) []byte { panic("not yet") }
