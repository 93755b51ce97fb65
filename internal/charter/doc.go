// Package charter holds what servers agree on about the pools of instances: whose
// signatures count, and the keys that a namespace's pool is encrypted with. It is no
// part of the replicated state, so that no backup, document or audit holds a key.
//
// Only the leader changes it, each part at a version that begins with its term. It
// travels between servers by gossip, as records of which the highest version wins,
// over a pool that is encrypted with a key that only servers have. Where that pool is
// plaintext there are no keys, and those of instances are plaintext too.
//
// The first keys of a namespace are derived from the servers' own: every server knows
// them without being told. A record of keys exists once an operator has rotated them.
//
// Nothing here reads a clock or does I/O.
package charter
