// Package flags knows what the definitions of flags, modes, policies and
// overrides mean: Validator checks them, Compile and Flag.Evaluate run the rules of
// one flag, and a View is a whole namespace as one instance obeys it. Everything
// here is a value; time comes in as an argument.
//
// What follows is the reference of the shapes; definitions are JSON objects, shown
// here as the values of their keys.
//
// # Flag
//
// One flag of the flagd definition format.
//
//	state           "ENABLED" or "DISABLED"; required
//	variants        {name: value}; required, not empty; all values are booleans,
//	                all strings, all numbers, or all objects
//	defaultVariant  one of the variants; null, "" or absent leaves the value to
//	                the caller's default
//	targeting       a JSONLogic rule; {}, null or absent for none
//	metadata        {key: string, number or boolean}; "flagSetId" is the flag set,
//	                "fractional": "v3" chooses the newer hash
//
// The rules are described in docs/flag-language.md. Other keys, such as "description", are kept and mean nothing. A key that is
// nearly one of the above or begins with "$" is refused: it is a mistake that
// would otherwise show when the flag is needed.
//
// # Mode
//
//	description     text
//	levels          from the mildest to the most degraded; at least one
//	  name          unique; "normal" is level 0 and not listed
//	  description   text
//	  effects       what the level adds to the levels before it
//
// An effect has one of three forms:
//
//	{"flag": F, "variant": V}       the flag has that variant
//	{"policy": P, "patch": {…}}     keys of the policy, merged over it
//	{"action": A, …}                what happens to calls
//
// The calls of an action are those that match any of
//
//	methods         "/shop.Orders/Place", "/shop.Orders/*" or "*"
//	operations      names given to client.Do
//	side_effects    true: every method not declared NO_SIDE_EFFECTS
//	except          methods that are not meant, though they match
//
// A pattern of a cache effect is about methods declared NO_SIDE_EFFECTS only.
//
// on the side "client" or "server"; a side left out is the client for fallback
// and cache, the server for reject and shed. The actions and their keys:
//
//	reject          code (name of a gRPC code, UNAVAILABLE), message,
//	                retry_after (duration)
//	fallback        fallback (the name of a registered chain)
//	cache           max_age (duration, required), vary (names of metadata)
//	shed            percent (above 0, up to 100, required)
//
// # Policy
//
// The resilience settings of one dependency: objects circuit_breaker,
// retry_policy, timeouts, bulkhead, fallback, fleet and fleet_without_traffic
// beside enforcement and description; see package policy for what they hold and
// docs/policies.md for every key. One is required. The patch of an effect has the
// same keys; null takes one away.
//
// # Override
//
// One of the forms
//
//	{"mode": M, "level": L}
//	{"flag": F, "variant": V}
//	{"breaker": D, "hold": "open" or "closed"}    optionally "method"
//	{"fault": {…}}
//
// and optionally the instances that it is for, otherwise all:
//
//	scope           {"selector": S, "percent": 0 to 100}; one is enough
//
// See ParseSelector for S. The end, the reason and the actor of an override
// belong to its resource, not to its definition.
package flags
