// Package version names the version of the programs.
package version

// Version is the version of this build.
const Version = "0.4.0"
