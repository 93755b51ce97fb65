// Package workload is the clients of a run: they write and read registers, which
// are string flags with unique values, follow them, degrade a mode for a while, and
// record what they asked, what was answered and when.
//
// A careful client names each write once, repeats it under that name with its age,
// and calls the outcome unknown unless every attempt certainly had no effect.
package workload
