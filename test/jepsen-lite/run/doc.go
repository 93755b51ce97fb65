// Package run carries one run through its phases: everybody starts, load for a
// second, faults, everything is healed, everybody settles and is asked for the last
// time, the history is judged. What a run needs and leaves lies in one directory.
package run
