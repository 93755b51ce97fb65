package client

import "github.com/holdfast-dev/holdfast/internal/degrade"

// Call is what a fallback answers.
//
//	type Call struct {
//		Dependency, Target string // Target is the method or operation
//		Request            any    // the message of a unary gRPC call, nil otherwise; it must not be changed or kept
//		Cause              error  // why the call failed; nil where a mode wants the fallback before it is made
//		By                 string // the level of the mode then, and the policy otherwise
//	}
type Call = degrade.Call

// FallbackFunc answers in place of a dependency: with a message of the method's
// reply type for gRPC, a value of Do's type otherwise. An error, a panic or an
// answer of another type asks the next one. It has the time of the policy's
// fallback.timeout, and where the call was made and failed, that also beyond the
// deadline of the call.
type FallbackFunc = degrade.Func

// RegisterFallback registers a chain of functions, asked in order, under the name of
// a chain, of a gRPC method "/package.Service/Method", or of an operation. It
// replaces the chain that the name had; without functions the name has none.
//
// Streams have no fallback: what could take up a stream in its middle is the
// caller's own business.
func (c *Client) RegisterFallback(name string, chain ...FallbackFunc) {
	c.calls.degrader.Register(name, chain...)
}
