// Package replies keeps the last good replies of calls, in bounded memory, for the
// effect "cache" of a mode: they are recorded in normal operation and served, up to
// some age, while the dependency is not to be called.
//
// Nobody may see another's reply. A key is therefore a cryptographic hash of all
// that the reply may depend on: dependency, method, request bytes, and the metadata
// that the effect names, authorization always among it. Who makes keys brings the
// bytes of requests in a form that is the same for equal requests; one that is not
// costs hits, never a wrong reply.
package replies
