package client

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/internal/flags"
)

// BoolFlag is a flag as a boolean. A handle is made once and kept; like all
// handles it never waits, and answers from the view that holds when it is asked.
type BoolFlag struct {
	cell      *cell
	otherwise bool
}

// Bool returns the handle of a boolean flag, with the value that it has where
// nothing else is said: the flag does not exist, is disabled, is of another type,
// or its rules fail.
func (c *Client) Bool(key string, otherwise bool) *BoolFlag {
	return &BoolFlag{c.holder.cell(key, flags.BoolType), otherwise}
}

// Get returns the value for the attributes. It allocates nothing.
func (f *BoolFlag) Get(attributes ...Attribute) bool {
	if v := f.cell.decide(attributes); v != nil {
		if b, ok := v.Value.AsBool(); ok {
			return b
		}
	}
	return f.otherwise
}

// StringFlag is a flag as a string.
type StringFlag struct {
	cell      *cell
	otherwise string
}

// String returns the handle of a string flag; see Bool.
func (c *Client) String(key, otherwise string) *StringFlag {
	return &StringFlag{c.holder.cell(key, flags.StringType), otherwise}
}

// Get returns the value for the attributes. It allocates nothing.
func (f *StringFlag) Get(attributes ...Attribute) string {
	if v := f.cell.decide(attributes); v != nil {
		if s, ok := v.Value.AsString(); ok {
			return s
		}
	}
	return f.otherwise
}

// IntFlag is a flag as an integer.
type IntFlag struct {
	cell      *cell
	otherwise int64
}

// Int returns the handle of an integer flag; see Bool. A variant that is no
// integer counts as one of another type.
func (c *Client) Int(key string, otherwise int64) *IntFlag {
	return &IntFlag{c.holder.cell(key, flags.FloatType), otherwise}
}

// Get returns the value for the attributes. It allocates nothing.
func (f *IntFlag) Get(attributes ...Attribute) int64 {
	if v := f.cell.decide(attributes); v != nil {
		if n, ok := v.Value.AsInt(); ok {
			return n
		}
	}
	return f.otherwise
}

// FloatFlag is a flag as a number.
type FloatFlag struct {
	cell      *cell
	otherwise float64
}

// Float returns the handle of a number flag; see Bool.
func (c *Client) Float(key string, otherwise float64) *FloatFlag {
	return &FloatFlag{c.holder.cell(key, flags.FloatType), otherwise}
}

// Get returns the value for the attributes. It allocates nothing.
func (f *FloatFlag) Get(attributes ...Attribute) float64 {
	if v := f.cell.decide(attributes); v != nil {
		if n, ok := v.Value.AsFloat(); ok {
			return n
		}
	}
	return f.otherwise
}

// ObjectFlag is a flag as a T.
type ObjectFlag[T any] struct {
	cell      *cell
	otherwise T

	decoded sync.Map // *flags.Variant → decoded[T]
	kept    sync.Mutex
	of      *flags.Flag // whose variants are kept
}

type decoded[T any] struct {
	value T
	err   error
}

// Object returns the handle of an object flag, whose variants are decoded from JSON
// into a T once each; see Client.Bool. One that does not fit into a T counts as one
// of another type. Values are shared: what they point to must not be changed.
func Object[T any](c *Client, key string, otherwise T) *ObjectFlag[T] {
	return &ObjectFlag[T]{cell: c.holder.cell(key, flags.ObjectType), otherwise: otherwise}
}

// Get returns the value for the attributes.
func (f *ObjectFlag[T]) Get(attributes ...Attribute) T {
	r := f.cell.flag()
	if r == nil {
		return f.otherwise
	}
	v := r.Evaluate(f.cell.now(r), attributes...).Variant
	if v == nil {
		return f.otherwise
	}
	known, ok := f.decoded.Load(v)
	if !ok {
		known = f.decode(r.Flag, v)
	}
	if d, ok := known.(decoded[T]); ok && d.err == nil {
		return d.value
	}
	return f.otherwise
}

// decode decodes a variant and keeps it. Variants of definitions that no longer
// hold are forgotten.
func (f *ObjectFlag[T]) decode(of *flags.Flag, v *flags.Variant) decoded[T] {
	var d decoded[T]
	if v.Value.Type() != flags.ObjectType {
		d.err = fmt.Errorf("flag %s is a %s", of.Key(), v.Value.Type())
	} else if err := unmarshal(v.JSON, &d.value); err != nil {
		d.err = fmt.Errorf("decode variant %q of flag %s: %w", v.Name, of.Key(), err)
	}
	f.kept.Lock()
	defer f.kept.Unlock()
	if f.of != of {
		f.of = of
		f.decoded.Clear()
	}
	f.decoded.Store(v, d)
	return d
}

// unmarshal contains a panic of the type's own decoding.
func unmarshal(text []byte, into any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return json.Unmarshal(text, into) //nolint:wrapcheck // the caller says what it is of
}

// Evaluation is what a flag is for one call, in the words of OpenFeature.
type Evaluation struct {
	// Value is null where the default of the code applies.
	Value   Value
	Variant string
	// Reason is STATIC, DEFAULT, TARGETING_MATCH, DISABLED or ERROR.
	Reason string
	// ErrorCode is PROVIDER_NOT_READY, FLAG_NOT_FOUND, PARSE_ERROR or GENERAL where
	// the reason is ERROR. A client that is disabled has the reason DISABLED.
	ErrorCode string
	// Metadata is that of the flag, sorted by key; "holdfast.forcedBy" says what forces it.
	// It must not be changed.
	Metadata []Attribute
	// Revision is the one of what decided; 0 where nothing did.
	Revision uint64
}

// Evaluate decides a flag of any type. Several that belong together are decided by one
// View.
func (c *Client) Evaluate(key string, attributes ...Attribute) Evaluation {
	return c.View().Evaluate(key, attributes...)
}

// notReady is OpenFeature's word for a provider that has no flags yet.
const notReady = "PROVIDER_NOT_READY"

func (h *holder) evaluate(at *holding, key string, attributes []Attribute) Evaluation {
	if r := at.flag(key); r != nil {
		return evaluation(r, r.Evaluate(h.now(r), attributes...))
	}
	return at.withoutFlag()
}

// withoutFlag is the evaluation of a flag that the view does not have.
func (of *holding) withoutFlag() Evaluation {
	switch {
	case of.disabled:
		return Evaluation{Reason: flags.Disabled.String()}
	case of.view == nil:
		return Evaluation{Reason: flags.Error.String(), ErrorCode: notReady}
	default:
		return Evaluation{Reason: flags.Error.String(), ErrorCode: flags.FlagNotFound.String()}
	}
}

func evaluation(r *flags.Resolved, d flags.Decision) Evaluation {
	e := Evaluation{Reason: d.Reason.String(), ErrorCode: d.Code.String(), Metadata: r.Metadata(), Revision: r.Revision()}
	if d.Variant != nil {
		e.Value, e.Variant = d.Variant.Value, d.Variant.Name
	}
	return e
}

// Explanation is an Evaluation with how it came about.
type Explanation struct {
	Evaluation
	// DecidedBy is such as "override/x", "mode/storefront=read-only",
	// "targeting.if[3]" or "code".
	DecidedBy string
	// Detail says more in words.
	Detail string
	// Ends is when what decided ends, by the wall clock of the instance; zero if it
	// does not.
	Ends time.Time
}

// Explain decides a flag and tells how.
func (c *Client) Explain(key string, attributes ...Attribute) Explanation {
	now := c.holder.current.Load()
	r := now.flag(key)
	if r == nil {
		e := now.withoutFlag()
		detail := "there is no such flag"
		switch {
		case e.Reason == flags.Disabled.String():
			detail = c.holder.disabledBy() + " is set"
		case e.ErrorCode == notReady:
			detail = "there is no view yet"
		}
		return Explanation{Evaluation: e, DecidedBy: "code", Detail: detail + "; the default of the code applies"}
	}
	x := r.Explain(c.holder.now(r), attributes...)
	e := Explanation{Evaluation: evaluation(r, x.Decision), DecidedBy: x.DecidedBy, Detail: x.Detail, Ends: c.holder.wall(x.End)}
	e.Revision = x.Revision
	return e
}
