package cli

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// The defaults of the global flags.
const (
	defaultAddr    = "127.0.0.1:7400"
	defaultPort    = "7400"
	defaultTimeout = 15 * time.Second
)

// options are the global flags as given.
type options struct {
	addr, context, namespace, output string
	tlsCA, tlsCert, tlsKey           string
	timeout                          string
	noColor, noInput, quiet          bool
}

// setting is a value and where it came from.
type setting struct {
	Value  string `json:"value"`
	Origin string `json:"origin"`
}

// settings are what the flags, the environment and the context file come to.
type settings struct {
	Context   setting `json:"context"`
	Addresses setting `json:"addresses"`
	Namespace setting `json:"namespace"`
	CA        setting `json:"tls_ca"`
	Cert      setting `json:"tls_cert"`
	Key       setting `json:"tls_key"`
}

// contextFile is the file of named contexts.
type contextFile struct {
	// Current is the context that is used where none is named.
	Current  string                   `yaml:"current,omitempty" json:"current"`
	Contexts map[string]*namedContext `yaml:"contexts,omitempty" json:"contexts"`
}

// namedContext is one way to reach a cluster.
type namedContext struct {
	Addresses []string `yaml:"addresses,omitempty" json:"addresses,omitempty"`
	Namespace string   `yaml:"namespace,omitempty" json:"namespace,omitempty"`
	TLSCA     string   `yaml:"tls_ca,omitempty" json:"tls_ca,omitempty"`
	TLSCert   string   `yaml:"tls_cert,omitempty" json:"tls_cert,omitempty"`
	TLSKey    string   `yaml:"tls_key,omitempty" json:"tls_key,omitempty"`
}

// contextPath returns where the named contexts are kept.
func (a *app) contextPath() (string, error) {
	if path := a.io.Getenv("HOLDFAST_CLI_CONFIG"); path != "" {
		return path, nil
	}
	base := a.io.Getenv("XDG_CONFIG_HOME")
	if base == "" {
		switch home := a.io.Getenv("HOME"); {
		case runtime.GOOS == "windows" && a.io.Getenv("APPDATA") != "":
			base = a.io.Getenv("APPDATA")
		case home != "":
			base = filepath.Join(home, ".config")
		default:
			return "", usage("no place for named contexts: neither HOME nor HOLDFAST_CLI_CONFIG is set")
		}
	}
	return filepath.Join(base, "holdfast", "config.yaml"), nil
}

// readContexts reads the named contexts; a file that does not exist has none.
func (a *app) readContexts() (*contextFile, string, error) {
	path, err := a.contextPath()
	if err != nil {
		return nil, "", err
	}
	out := &contextFile{Contexts: map[string]*namedContext{}}
	src, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return out, path, nil
	}
	if err != nil {
		return nil, path, fileFailure(path, err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(src))
	dec.KnownFields(true)
	if err := dec.Decode(out); err != nil && !errors.Is(err, io.EOF) {
		f := usage("the file of named contexts is damaged: %s", path)
		for _, line := range splitLines(err.Error()) {
			f.addDetail("%s", oneLine(line))
		}
		return nil, path, f.hint("edit it, or move it away and create contexts with `holdfast context set`")
	}
	for name, c := range out.Contexts {
		if c == nil {
			out.Contexts[name] = &namedContext{}
		}
	}
	return out, path, nil
}

// writeContexts replaces the file of named contexts.
func writeContexts(path string, file *contextFile) error {
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(2)
	if err := enc.Encode(file); err != nil {
		return fmt.Errorf("encode contexts: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("create directory of contexts: %w", err)
	}
	return writeFileAtomic(path, buf.Bytes(), 0o600)
}

// names lists the contexts in order.
func (f *contextFile) names() []string {
	out := make([]string, 0, len(f.Contexts))
	for name := range f.Contexts {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}

// find returns a context by name.
func (f *contextFile) find(name string) (*namedContext, error) {
	if c := f.Contexts[name]; c != nil {
		return c, nil
	}
	out := fail(exitNotFound, "there is no context %q", name)
	if hint := didYouMean(name, f.names()); hint != "" {
		return nil, out.hint("%s", hint)
	}
	if len(f.Contexts) == 0 {
		return nil, out.hint("create it with `holdfast context set %s --addr HOST:PORT`", name)
	}
	return nil, out.hint("there are: %s", strings.Join(f.names(), ", "))
}

// resolve merges flags, a context named by a flag, the environment, the current
// context and the defaults, in this order. A context named on the command line
// beats the environment: it was typed now.
func (a *app) resolve() (*settings, error) {
	file, path, err := a.readContexts()
	if err != nil {
		if a.opt.context == "" && a.io.Getenv("HOLDFAST_CONTEXT") == "" && path == "" {
			file = &contextFile{} // no home directory: there are no contexts
		} else {
			return nil, err
		}
	}
	s := &settings{}
	switch env := a.io.Getenv("HOLDFAST_CONTEXT"); {
	case a.opt.context != "":
		s.Context = setting{a.opt.context, "--context"}
	case env != "":
		s.Context = setting{env, "HOLDFAST_CONTEXT"}
	case file.Current != "":
		s.Context = setting{file.Current, path}
	}
	ctx := &namedContext{}
	if s.Context.Value != "" {
		if ctx, err = file.find(s.Context.Value); err != nil {
			return nil, err
		}
	}
	pick := func(given, flag, env, fromContext, def string) setting {
		named := setting{fromContext, "context " + s.Context.Value}
		fromEnv := setting{a.io.Getenv(env), env}
		switch {
		case given != "":
			return setting{given, flag}
		case a.opt.context != "" && named.Value != "":
			return named
		case env != "" && fromEnv.Value != "":
			return fromEnv
		case named.Value != "":
			return named
		case def != "":
			return setting{def, "default"}
		}
		return setting{}
	}
	s.Addresses = pick(a.opt.addr, "--addr", "HOLDFAST_ADDR", strings.Join(ctx.Addresses, ","), defaultAddr)
	s.Namespace = pick(a.opt.namespace, "--namespace", "HOLDFAST_NAMESPACE", ctx.Namespace, document.DefaultNamespace)
	s.CA = pick(a.opt.tlsCA, "--tls-ca", "HOLDFAST_TLS_CA", ctx.TLSCA, "")
	s.Cert = pick(a.opt.tlsCert, "--tls-cert", "HOLDFAST_TLS_CERT", ctx.TLSCert, "")
	s.Key = pick(a.opt.tlsKey, "--tls-key", "HOLDFAST_TLS_KEY", ctx.TLSKey, "")
	if err := document.CheckName(s.Namespace.Value); err != nil {
		return nil, usage("the namespace from %s: %v", s.Namespace.Origin, err)
	}
	return s, nil
}

// parseAddresses splits a list of servers and adds the default port.
func parseAddresses(list string) ([]string, error) {
	var out []string
	for addr := range strings.SplitSeq(list, ",") {
		addr = strings.TrimSpace(addr)
		if addr == "" {
			continue
		}
		if strings.Contains(addr, "://") {
			return nil, usage("the address %q has a scheme; write HOST:PORT", addr)
		}
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			host, port, err = net.SplitHostPort(strings.Trim(addr, "[]") + ":" + defaultPort)
			if ip := net.ParseIP(strings.Trim(addr, "[]")); ip != nil {
				host, port, err = ip.String(), defaultPort, nil
			}
		}
		if err != nil || strings.ContainsAny(host, " /") || cmp.Or(port, " ") == " " {
			return nil, usage("%q is not an address; write HOST:PORT, several separated by commas", addr)
		}
		out = append(out, net.JoinHostPort(host, port))
	}
	if len(out) == 0 {
		return nil, usage("no server address given").hint("--addr HOST:PORT, HOLDFAST_ADDR, or a named context")
	}
	return out, nil
}
