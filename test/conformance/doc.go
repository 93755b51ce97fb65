// Package conformance shows that OpenFeature providers which know nothing of
// Holdfast get the right flags from it: those of flagd and of OFREP, for Go and
// for JavaScript, against three real servers. It is a module of its own, so that
// the product depends on none of them.
//
// Beside it, oracle draws flags for the comparison with flagd's evaluator, which
// internal/flags replays. `make conformance` runs both.
package conformance
