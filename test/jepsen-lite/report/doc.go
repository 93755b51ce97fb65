// Package report shows what came of a run, and of many: a page in HTML and one in
// Markdown each, complete in themselves.
package report
