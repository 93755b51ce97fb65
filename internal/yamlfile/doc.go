// Package yamlfile reads YAML and JSON files as trees whose values know their lines,
// so that what is wrong with a file can be told where it is wrong. It has the rules
// of YAML 1.2 (on, off, yes and no are strings), refuses what readers understand
// differently, such as a key that occurs twice, and bounds what aliases expand to.
package yamlfile
