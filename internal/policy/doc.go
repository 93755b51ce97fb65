// Package policy holds the resilience settings of one dependency: what a
// definition may say, what holds where it says nothing, and how the effect of a
// mode changes it. docs/policies.md is the reference of the keys; a test holds
// its table against this package.
//
// Each section declares its keys once, with type, range and place; Check, Parse,
// Policy.Spec and the table of the documentation all come from those
// declarations. Everything here is a value: no clock, no lock, no I/O. What is
// wrong in a stored definition never makes it useless: the setting at fault is
// reported and keeps its default.
//
// What the settings come to is arithmetic beside them: Retry.Pause, Timeouts.Limit
// and Timeouts.Attempt, Bulkhead.Adapt. A RetryBudget is the one thing that changes,
// by atomics; time and randomness are arguments of them all.
package policy
