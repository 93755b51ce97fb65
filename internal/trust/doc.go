// Package trust holds who may say what to whom: the keys of servers and of
// instances, the certificates that servers give to instances, the set of keys that
// servers sign with, and the heads by which a server vouches for the content of a
// namespace.
//
// Everything here is a value. Nothing reads a clock or does I/O; state time comes in
// as an argument. Every encoding is canonical: there is one sequence of bytes for
// each value, and whatever else decodes to it is refused. Every signature is over a
// text of its own before those bytes, so that none can be taken for another one.
//
// A [Key] shows its id wherever it is printed, logged or marshalled, never itself.
package trust
