// Package seam holds the places where tests look into a running process and
// disturb it. Without the build tag "faults" every function is empty and is
// compiled away; with it, a process reads HOLDFAST_FAULTS and HOLDFAST_TRACE.
//
// HOLDFAST_TRACE names a file to which events are appended, one JSON object a
// line: "t" is the wall clock and "m" the monotonic one of the machine, both in
// nanoseconds, "kind" what happened. HOLDFAST_FAULTS names a file of armed failpoints, one a line:
//
//	POINT error|delay=DURATION|exit=CODE [once|count=N|after=N]
//
// The file is read again whenever its modification time changes, so that a test
// can arm and disarm points while the process runs.
package seam
