package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// envPrefix begins the variables of all Holdfast programs.
const envPrefix = "HOLDFAST_"

// ErrHelp is returned by Load when help was asked for.
var ErrHelp = errors.New("help requested")

// ConfigError lists everything that is wrong with a configuration.
type ConfigError struct{ Problems []string }

// Error lists the problems, one a line.
func (e *ConfigError) Error() string {
	return "configuration:\n  " + strings.Join(e.Problems, "\n  ")
}

// Settings is a configuration with the origin of each value.
type Settings struct {
	Config Config
	// origins is where each key's value comes from; absent means the default.
	origins map[string]string
}

// layers reads the sources in the order of precedence: a value that is set
// already stays. Every value of every source is checked, also the hidden ones.
type layers struct {
	settings *Settings
	flags    *pflag.FlagSet
	problems []string
}

// Load makes a configuration of arguments, variables (as os.Environ gives them)
// and the file that they name. What a flag says beats a variable, that beats the
// file, and that beats the default. The error is a *ConfigError with all
// problems at once, or ErrHelp.
func Load(args, environ []string) (*Settings, error) {
	s := &Settings{origins: make(map[string]string)}
	l := &layers{settings: s, flags: s.Config.flags()}
	if err := l.arguments(args); err != nil {
		return nil, err
	}
	l.variables(environ)
	if s.Config.File != "" {
		l.file(s.Config.File)
	}
	for _, key := range s.Config.derive() {
		s.origins[key] = "default, from bind and port-base"
	}
	l.problems = append(l.problems, s.Config.check()...)
	if len(l.problems) > 0 {
		return nil, &ConfigError{Problems: l.problems}
	}
	return s, nil
}

// Usage describes every setting.
func Usage() string {
	var c Config
	return c.flags().FlagUsages()
}

// set gives a key a value, unless a source before did.
func (l *layers) set(key, value, origin string) {
	var scratch Config
	if err := scratch.flags().Set(key, value); err != nil {
		l.problem("%s: %s %q: %s", origin, key, value, reason(err))
		return
	}
	if _, taken := l.settings.origins[key]; taken {
		return
	}
	l.settings.origins[key] = origin
	// It was accepted by the scratch copy.
	_ = l.flags.Set(key, value)
}

// append adds to a list that the same source has begun.
func (l *layers) append(key, value string) { _ = l.flags.Set(key, value) }

func (l *layers) problem(format string, args ...any) {
	l.problems = append(l.problems, fmt.Sprintf(format, args...))
}

func (l *layers) unknown(what, key string, candidates []string) {
	text := "unknown " + what + " " + key
	if near := nearest(key, candidates); near != "" {
		text += "; did you mean " + near + "?"
	}
	l.problems = append(l.problems, text)
}

// arguments reads the command line. pflag would stop at the first problem.
func (l *layers) arguments(args []string) error {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "-h" || arg == "--help" {
			return ErrHelp
		}
		name, value, inline := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if !strings.HasPrefix(arg, "--") || name == "" {
			l.problem("unexpected argument %q: flags are written --like-this", arg)
			continue
		}
		flag := l.flags.Lookup(name)
		if flag == nil {
			l.unknown("flag", "--"+name, l.names("--%s"))
			continue
		}
		switch {
		case inline:
		case flag.NoOptDefVal != "":
			value = flag.NoOptDefVal
		case i+1 < len(args):
			i++
			value = args[i]
		default:
			l.problem("flag --%s needs a value", name)
			continue
		}
		origin := "flag --" + name
		if l.settings.origins[name] == origin && flag.Value.Type() == "stringSlice" {
			l.append(name, value)
			continue
		}
		if l.settings.origins[name] == origin {
			l.problem("flag --%s is given twice", name)
			continue
		}
		l.set(name, value, origin)
	}
	return nil
}

// foreign are the variables of other Holdfast programs and of the test seams.
func foreign(name string) bool {
	return slices.Contains([]string{
		"HOLDFAST_ADDR", "HOLDFAST_CONTEXT", "HOLDFAST_CLI_CONFIG", "HOLDFAST_NAMESPACE", "HOLDFAST_OUTPUT",
		"HOLDFAST_DISABLE", "HOLDFAST_FAULTS", "HOLDFAST_TRACE", "HOLDFAST_BUG", "HOLDFAST_TLS_SERVER_NAME", "HOLDFAST_PLAINTEXT",
	}, name)
}

// variables reads the environment.
func (l *layers) variables(environ []string) {
	known := make(map[string]string)
	l.flags.VisitAll(func(f *pflag.Flag) { known[variable(f.Name)] = f.Name })
	environ = slices.Clone(environ)
	slices.Sort(environ)
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || foreign(name) {
			continue
		}
		key, ok := known[name]
		if !ok {
			names := make([]string, 0, len(known))
			for n := range known {
				names = append(names, n)
			}
			l.unknown("variable", name, names)
			continue
		}
		l.set(key, value, "variable "+name)
	}
}

func variable(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
}

// names formats every key.
func (l *layers) names(format string) []string {
	var names []string
	l.flags.VisitAll(func(f *pflag.Flag) { names = append(names, fmt.Sprintf(format, f.Name)) })
	return names
}

// reason takes the part of a parse error that helps.
func reason(err error) string {
	if path := new(fs.PathError); errors.As(err, &path) {
		return path.Err.Error()
	}
	text := err.Error()
	if i := strings.LastIndex(text, "flag: "); i >= 0 {
		text = text[i+len("flag: "):]
	}
	return text
}

// readFile reads a file of settings.
func readFile(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, errors.New(reason(err))
	}
	return data, nil
}
