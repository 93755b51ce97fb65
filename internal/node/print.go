package node

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Print writes every value with its origin, as a file that can be used with
// --config. Secrets are never values, only names of files, so none is shown.
func (s *Settings) Print(w io.Writer) error {
	c := s.Config.clone()
	type row struct{ text, origin string }
	var rows []row
	width := 0
	// The table writes defaults into its configuration when it is made, so the
	// values are copied in afterwards.
	var shown Config
	flags := shown.flags()
	shown = c
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "config" {
			return
		}
		origin := s.origins[f.Name]
		if origin == "" {
			origin = "default"
		}
		text := f.Name + ": " + display(f)
		rows = append(rows, row{text, origin})
		width = max(width, len(text))
	})
	for _, r := range rows {
		if _, err := fmt.Fprintf(w, "%-*s  # %s\n", width, r.text, r.origin); err != nil {
			return fmt.Errorf("print configuration: %w", err)
		}
	}
	return nil
}

// display writes a value as YAML.
func display(f *pflag.Flag) string {
	value := f.Value.String()
	switch f.Value.Type() {
	case "duration":
		if d, err := time.ParseDuration(value); err == nil {
			return human(d)
		}
		return value
	case "bool", "int":
		return value
	}
	if list, ok := f.Value.(pflag.SliceValue); ok {
		var items []string
		for _, item := range list.GetSlice() {
			items = append(items, quoted(item))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	return quoted(value)
}

// quoted quotes what YAML would not read as a plain word.
func quoted(value string) string {
	if value == "" || strings.Contains(value, ": ") || strings.ContainsAny(value, "#'\"{}[],&*!|>%@` ") {
		return strconv.Quote(value)
	}
	return value
}

// human drops the parts of a duration that are zero.
func human(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Example is a configuration file with every setting at its default, commented
// out.
func Example() string {
	var c Config
	var b strings.Builder
	b.WriteString("# Every setting of controlplane, at its default.\n")
	c.flags().VisitAll(func(f *pflag.Flag) {
		if f.Name == "config" {
			return
		}
		_, text := pflag.UnquoteUsage(f)
		fmt.Fprintf(&b, "\n# %s\n# %s: %s\n", text, f.Name, display(f))
	})
	return b.String()
}
