package client

import "github.com/holdfast-dev/holdfast/internal/flags"

// Attribute is one thing that rules can look at: see Targeting, String and others.
type Attribute = flags.Attribute

// Value is a value of the flag language: null, a boolean, a number, a string, a list
// or an object. AsBool, AsInt, AsFloat and AsString return it where it has that type;
// Elements and Members those of lists and objects; AppendJSON writes it.
type Value = flags.Value

// Targeting returns the attribute that says for whom a flag is evaluated: rules
// draw shares by it.
func Targeting(id string) Attribute {
	return Attribute{Key: flags.TargetingKey, Value: flags.String(id)}
}

// String returns an attribute.
func String(key, value string) Attribute { return Attribute{Key: key, Value: flags.String(value)} }

// Int returns an attribute.
func Int(key string, value int64) Attribute { return Attribute{Key: key, Value: flags.Int(value)} }

// Float returns an attribute. What JSON cannot hold, infinities and NaN, is null.
func Float(key string, value float64) Attribute {
	return Attribute{Key: key, Value: flags.Float(value)}
}

// Bool returns an attribute.
func Bool(key string, value bool) Attribute { return Attribute{Key: key, Value: flags.Bool(value)} }
