package degrade

import (
	"context"
	"slices"
	"strings"

	"github.com/holdfast-dev/holdfast/internal/replies"
)

// Call is what a fallback answers.
type Call struct {
	Dependency string
	// Target is the method or operation.
	Target string
	// Request is the message of a unary gRPC call, nil otherwise. It belongs to the
	// caller: it must not be changed, nor kept beyond the end of the context.
	Request any
	// Cause is why it is needed: the error of the call, or nil where a mode demands
	// the fallback before the call is made; By names the level then, and the policy
	// otherwise.
	Cause error
	By    string
}

// Func answers in place of a dependency. An error asks the next function of the
// chain.
type Func func(ctx context.Context, call Call) (any, error)

// Question is a call that something else than its dependency may answer. One
// goroutine uses it at a time, but for Check.
type Question interface {
	// Request is what functions of a fallback get to see.
	Request() any
	// Key names the question by everything that the answer may depend on: dependency,
	// method, the exact request, and the values of the metadata called so (lower case,
	// sorted, authorization always among them). It is false where that cannot be known.
	Key(vary []string) (replies.Key, bool)
	// Reply returns the reply of the call in a form to keep, which nobody changes, and
	// its bytes; false if it cannot be kept.
	Reply() (reply any, size int, ok bool)
	// Recall takes what Reply returned as the answer. An error means that it is none.
	Recall(reply any) error
	// Check tells whether Accept can take an answer. It looks only at what does not
	// change, because it may run after the call has ended.
	Check(answer any) error
	// Accept takes the answer of a function that Check found right.
	Accept(answer any)
}

// authorization is part of every key.
const authorization = "authorization"

// Names returns the names of metadata that tell answers apart: lower case, sorted,
// each once, authorization among them.
func Names(vary []string) []string {
	all := make([]string, 0, len(vary)+1)
	all = append(all, authorization)
	for _, name := range vary {
		all = append(all, strings.ToLower(name))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Pairs returns the values of the named metadata, in the order of the names.
func Pairs(vary []string, metadata map[string][]string) []replies.Pair {
	var pairs []replies.Pair
	for _, name := range vary {
		for _, value := range metadata[name] {
			pairs = append(pairs, replies.Pair{Name: name, Value: value})
		}
	}
	return pairs
}
