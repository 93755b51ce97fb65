package facade

import "time"

// Limits of the façades. Each has a refusal or a named policy; docs/limits.md
// lists them.
const (
	// maxRequestBytes is the largest body of a request: HTTP 413,
	// RESOURCE_EXHAUSTED; on the gRPC port the largest context:
	// INVALID_ARGUMENT.
	maxRequestBytes = 1 << 20
	// maxContextDepth is how deep a context may nest: INVALID_ARGUMENT,
	// INVALID_CONTEXT.
	maxContextDepth = 64
	// maxAttributes is how many attributes a context may have, for each of which a
	// rule may have to look: INVALID_ARGUMENT, INVALID_CONTEXT.
	maxAttributes = 1024
	// maxSelectorBytes is the longest selector: INVALID_ARGUMENT, GENERAL.
	maxSelectorBytes = 1024
	// maxDocumentBytes is the largest message that providers receive, as they
	// leave gRPC's limit alone: RESOURCE_EXHAUSTED.
	maxDocumentBytes = 4 << 20
	// maxStreams is the most open streams of a server: RESOURCE_EXHAUSTED,
	// HTTP 503.
	maxStreams = 10_000
	// maxSelectors is how many different selectors the open streams may have:
	// RESOURCE_EXHAUSTED, HTTP 503.
	maxSelectors = 4096
	// maxNamespaces is how many namespaces are kept compiled before those that
	// are gone from the state are dropped. The state holds no more.
	maxNamespaces = 1024
	// maxConnections is the most connections to the HTTP port; further ones are
	// closed at once.
	maxConnections = 20_000
	// maxHeaderBytes is how long the headers of a request may be: HTTP 431.
	maxHeaderBytes = 16 << 10
	// maxCatchUp is how long an answer waits for what a client has heard of from
	// another server; then it is of what this one has.
	maxCatchUp = 2 * time.Second
	// maxTokens and minTokenBytes are how many tokens there may be, and how long
	// each has to be: refused at the start.
	maxTokens     = 8
	minTokenBytes = 16
)

const (
	// coalescing is how long after a change the next one is told at the earliest.
	coalescing = 100 * time.Millisecond
	// keepAlive is how often a stream shows that it lives.
	keepAlive = 20 * time.Second
	// inactivityDelay is what web clients are told to wait, hidden, before they
	// close their stream.
	inactivityDelay = 120 * time.Second
	// bodyTime is how long a request's body may take to arrive: HTTP 408.
	bodyTime = 10 * time.Second
	// sendTime is how long the HTTP port tries to send what it has written to a
	// client that does not read.
	sendTime = 30 * time.Second
	// drainTime is what requests under way get to end in when the server stops.
	drainTime = 3 * time.Second
	// eventKeys is how many flags one configuration_change names; what is more
	// follows in further ones.
	eventKeys = 1000
)
