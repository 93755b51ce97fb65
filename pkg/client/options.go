package client

import "github.com/holdfast-dev/holdfast/internal/guard"

// CallOption changes how calls are made. Options are values: one that is made once
// and used for many calls costs nothing more.
type CallOption struct {
	kind     optionKind
	text     string
	classify func(error) Outcome
}

type optionKind uint8

const (
	operationOption optionKind = iota + 1
	idempotentOption
	readOnlyOption
	cacheKeyOption
	classifyOption
	sharedCredentialsOption
)

// Operation names what is called, for timeouts, fallbacks and breakers of its own;
// without it the name of the dependency is meant. It means nothing to gRPC, where
// the method is the name.
func Operation(name string) CallOption { return CallOption{kind: operationOption, text: name} }

// Idempotent tells that a call may be repeated; given to DialOptions, that all calls
// of the connection may.
func Idempotent() CallOption { return CallOption{kind: idempotentOption} }

// ReadOnly tells that a call changes nothing: it may be repeated as one that is
// Idempotent, and where the policy has a hedge_delay also be made twice at the same
// time, so that what Do calls must be safe for that. Given to DialOptions, it is about
// all calls of the connection. What modes do is decided by protos alone.
func ReadOnly() CallOption { return CallOption{kind: readOnlyOption} }

// CacheKey tells calls apart for the cache of replies; without one Do records
// nothing. What is kept is the value itself, which nobody may change then.
//
// The key must hold whatever the answer depends on, such as the user. The
// authorization metadata of the context, incoming and outgoing, is always added to
// it.
func CacheKey(key string) CallOption { return CallOption{kind: cacheKeyOption, text: key} }

// Classify tells what errors mean. It must not block. A panic counts as
// Unclassified. It is not asked about a Rejection.
func Classify(f func(error) Outcome) CallOption {
	return CallOption{kind: classifyOption, classify: f}
}

// SharedCredentials tells DialOptions that the per-RPC credentials of the connection
// are those of the process and the same for all calls. Without it no replies are
// recorded on a connection that has such credentials, because they may be another
// user's with each call, which nobody but they can know.
func SharedCredentials() CallOption { return CallOption{kind: sharedCredentialsOption} }

// callOptions are options put together.
type callOptions struct {
	operation  string
	key        string
	keyed      bool
	idempotent bool
	readOnly   bool
	shared     bool
	classify   func(error) Outcome
}

// take puts options together; later ones win.
func (o *callOptions) take(options []CallOption) {
	for i := range options {
		switch options[i].kind {
		case operationOption:
			o.operation = options[i].text
		case idempotentOption:
			o.idempotent = true
		case readOnlyOption:
			o.idempotent, o.readOnly = true, true
		case cacheKeyOption:
			o.key, o.keyed = options[i].text, true
		case classifyOption:
			o.classify = options[i].classify
		case sharedCredentialsOption:
			o.shared = true
		}
	}
}

// setting returns what holds for a call that begins now.
func (o *callOptions) setting(t *target) *guard.Setting {
	switch s := t.Now(); {
	case o.readOnly:
		return s.ReadOnly()
	case o.idempotent:
		return s.Repeatable()
	default:
		return s
	}
}
