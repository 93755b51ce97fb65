package facade

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/holdfast-dev/holdfast/internal/flags"
)

// exact is 2^53: up to it a double tells every integer from the next.
const exact = 1 << 53

// attributesOf reads the context of a call. Integers, which travel as doubles,
// are integers again.
func attributesOf(context *structpb.Struct) ([]flags.Attribute, error) {
	if size := proto.Size(context); size > maxRequestBytes {
		return nil, fmt.Errorf("context has %d bytes; at most %d are allowed", size, maxRequestBytes)
	}
	if len(context.GetFields()) > maxAttributes {
		return nil, errManyAttributes
	}
	return membersOf(context, 1)
}

var errManyAttributes = fmt.Errorf("context has more than %d attributes", maxAttributes)

var errDeepContext = fmt.Errorf("context nests deeper than %d levels", maxContextDepth)

func membersOf(s *structpb.Struct, depth int) ([]flags.Attribute, error) {
	if depth > maxContextDepth {
		return nil, errDeepContext
	}
	members := make([]flags.Attribute, 0, len(s.GetFields()))
	for key, field := range s.GetFields() {
		value, err := valueOf(field, depth)
		if err != nil {
			return nil, err
		}
		members = append(members, flags.Attribute{Key: key, Value: value})
	}
	return members, nil
}

func valueOf(v *structpb.Value, depth int) (flags.Value, error) {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_BoolValue:
		return flags.Bool(kind.BoolValue), nil
	case *structpb.Value_NumberValue:
		return numberOf(kind.NumberValue), nil
	case *structpb.Value_StringValue:
		return flags.String(kind.StringValue), nil
	case *structpb.Value_ListValue:
		return listOf(kind.ListValue.GetValues(), depth+1)
	case *structpb.Value_StructValue:
		members, err := membersOf(kind.StructValue, depth+1)
		return flags.Object(members...), err
	default:
		return flags.Value{}, nil
	}
}

func listOf(values []*structpb.Value, depth int) (flags.Value, error) {
	if depth > maxContextDepth {
		return flags.Value{}, errDeepContext
	}
	elements := make([]flags.Value, len(values))
	for i, v := range values {
		element, err := valueOf(v, depth)
		if err != nil {
			return flags.Value{}, err
		}
		elements[i] = element
	}
	return flags.List(elements...), nil
}

func numberOf(f float64) flags.Value {
	if f == math.Trunc(f) && math.Abs(f) <= exact {
		return flags.Int(int64(f))
	}
	return flags.Float(f)
}

var (
	errContextNoObject = errors.New(`"context" must be an object`)
	errBodyNoObject    = errors.New("the body must be a JSON object")
)

// attributesOfBody reads the context of an OFREP request. A body without one, or
// none at all, has an empty context.
func attributesOfBody(body []byte) ([]flags.Attribute, error) {
	if blank(body) {
		return nil, nil
	}
	value, err := flags.ParseValue(body)
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	members, ok := value.Members()
	if !ok {
		return nil, errBodyNoObject
	}
	for _, m := range members {
		if m.Key != "context" || m.Value.Type() == flags.NullType {
			continue
		}
		attributes, ok := m.Value.Members()
		switch {
		case !ok:
			return nil, errContextNoObject
		case len(attributes) > maxAttributes:
			return nil, errManyAttributes
		case tooDeep(m.Value, maxContextDepth):
			return nil, errDeepContext
		}
		return attributes, nil
	}
	return nil, nil
}

// tooDeep tells whether a value nests deeper than so many levels.
func tooDeep(v flags.Value, levels int) bool {
	deeper := func(v flags.Value) bool { return tooDeep(v, levels-1) }
	if members, ok := v.Members(); ok {
		return levels == 0 || slices.ContainsFunc(members, func(m flags.Attribute) bool { return deeper(m.Value) })
	}
	elements, ok := v.Elements()
	return ok && (levels == 0 || slices.ContainsFunc(elements, deeper))
}

// blank tells whether there is nothing but white space.
func blank(body []byte) bool {
	for _, c := range body {
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return false
		}
	}
	return true
}

// structOf is the inverse of attributesOf; never nil.
func structOf(members []flags.Attribute) *structpb.Struct {
	s := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(members))}
	for _, m := range members {
		s.Fields[m.Key] = protoOf(m.Value)
	}
	return s
}

func protoOf(v flags.Value) *structpb.Value {
	switch v.Type() {
	case flags.BoolType:
		b, _ := v.AsBool()
		return structpb.NewBoolValue(b)
	case flags.IntType, flags.FloatType:
		return structpb.NewNumberValue(nearest(v))
	case flags.StringType:
		s, _ := v.AsString()
		return structpb.NewStringValue(s)
	case flags.ListType:
		elements, _ := v.Elements()
		list := make([]*structpb.Value, len(elements))
		for i, e := range elements {
			list[i] = protoOf(e)
		}
		return structpb.NewListValue(&structpb.ListValue{Values: list})
	case flags.ObjectType:
		members, _ := v.Members()
		return structpb.NewStructValue(structOf(members))
	case flags.NullType:
	}
	return structpb.NewNullValue()
}

// nearest returns a number as the nearest double.
func nearest(v flags.Value) float64 {
	if f, ok := v.AsFloat(); ok {
		return f
	}
	n, _ := v.AsInt()
	return float64(n)
}
