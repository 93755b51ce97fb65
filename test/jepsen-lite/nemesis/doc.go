// Package nemesis is the catalogue of faults: how each is brought about, how it is
// shown to have bitten, and how it ends. A fault that cannot show that it bit makes
// its run invalid; one that the machine cannot bring about is skipped, with the
// reason.
package nemesis
