// Package schema reads definitions so that everything that is wrong with one is
// reported at once, each with the path of the value at fault and, where it can be
// told, what was probably meant.
package schema
