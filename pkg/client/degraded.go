package client

import (
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// DegradedKey is the response metadata (and HTTP header) that marks a degraded
// answer; its value says by what, such as "mode/storefront=read-only; cache" or
// "policy/payments; fallback".
const DegradedKey = "holdfast-degraded"

// DegradedBy returns what a header says of degradation; empty for nothing. For
// answers that an instance gives itself, a grpc.Header call option gets the mark as
// well.
func DegradedBy(md metadata.MD) string { return strings.Join(md.Get(DegradedKey), ", ") }

// markAnswer puts a mark into the header that the caller of a gRPC call asked for,
// if it did.
func markAnswer(options []grpc.CallOption, by string) {
	for _, o := range options {
		if header, ok := o.(grpc.HeaderCallOption); ok && header.HeaderAddr != nil {
			*header.HeaderAddr = metadata.Join(*header.HeaderAddr, metadata.Pairs(DegradedKey, by))
		}
	}
}
