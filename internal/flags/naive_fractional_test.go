package flags

import (
	"math"
	"reflect"
)

// fractional chooses one of several buckets by a hash.
func (n naive) fractional(operands []any) any {
	seed, buckets := n.seed(operands)
	if seed == nil {
		return nil
	}
	var variants []any
	var weights []uint64
	total := uint64(0)
	for _, bucket := range buckets {
		variant, weight, ok := naiveBucket(bucket)
		if !ok {
			return nil
		}
		total += weight
		variants, weights = append(variants, variant), append(weights, weight)
	}
	if total > math.MaxInt32 {
		return nil
	}
	chosen := uint64(naiveMurmur3(seed)) * total >> 32
	end := uint64(0)
	for i, weight := range weights {
		if end += weight; chosen < end {
			return variants[i]
		}
	}
	return nil
}

// seed returns what is hashed, nil for none, and the buckets.
func (n naive) seed(operands []any) (seed []byte, buckets []any) {
	first := naiveAt(operands, 0)
	if n.v3 {
		switch x := first.(type) {
		case nil:
			return nil, nil
		case []any:
		case map[string]any:
			if reflect.DeepEqual(x, n.root) {
				return nil, nil // all data has the time in it
			}
			return naiveCBOR(first), operands[1:]
		default:
			return naiveCBOR(first), operands[1:]
		}
	} else {
		if text, ok := first.(string); ok {
			return append([]byte{}, text...), operands[1:]
		}
		if first == nil && len(operands) > 1 {
			operands = operands[1:]
		}
	}
	targetingKey, _ := n.root[TargetingKey].(string)
	switch {
	case targetingKey == "":
		return nil, nil
	case n.v3:
		return naiveCBOR([]any{n.key, targetingKey}), operands
	default:
		return []byte(n.key + targetingKey), operands
	}
}

// naiveBucket reads [variant] or [variant, weight].
func naiveBucket(bucket any) (variant any, weight uint64, ok bool) {
	list, _ := bucket.([]any)
	if len(list) != 1 && len(list) != 2 || naiveCompound(list[0]) {
		return nil, 0, false
	}
	if len(list) == 1 {
		return list[0], 1, true
	}
	number := naiveNumber(list[1])
	if !naiveIsNumber(list[1]) || number != math.Trunc(number) {
		return nil, 0, false
	}
	return list[0], uint64(min(max(number, 0), math.MaxInt32+1)), true
}
