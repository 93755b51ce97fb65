package cli

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/pki"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// app is one run of the program.
type app struct {
	io     IO
	opt    options
	format format
	// wide has tables tell more, where there is more.
	wide     bool
	timeout  time.Duration
	out, err palette
	asker    *asker
	now      func() time.Time
	// skew is what to add to this computer's clock to get the cluster's.
	skew time.Duration
	// settings and remote are there after connect.
	settings *settings
	remote   *remote
}

// Run runs the program with its arguments, the program's name left out, and
// returns the exit code. Ctrl-C and SIGTERM end it in good order; a second one
// ends it at once.
func Run(args []string, streams IO) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 1)
	done := make(chan struct{})
	listen := func() { signal.Notify(signals, os.Interrupt, syscall.SIGTERM) }
	ignore := func() { signal.Stop(signals) }
	listen()
	go func() {
		defer close(done)
		if _, ok := <-signals; ok {
			ignore()
			cancel()
		}
	}()
	defer func() {
		ignore()
		close(signals)
		<-done
	}()

	a := newApp(streams)
	// While a question stands, Ctrl-C must end the process although it waits for
	// input; nothing is under way then.
	a.asker.before, a.asker.after = ignore, listen
	return a.run(ctx, args)
}

// newApp returns an app that has done nothing yet.
func newApp(streams IO) *app {
	nothing := func() {}
	return &app{
		io: streams, now: time.Now, timeout: defaultTimeout, format: tableFormat,
		asker: &asker{in: bufio.NewReader(streams.In), out: streams.Err, before: nothing, after: nothing},
	}
}

// run executes one command line and reports its error.
func (a *app) run(ctx context.Context, args []string) int {
	// Known before the flags are parsed, so that their errors look right too.
	a.colours()
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if a.remote != nil {
		a.remote.close()
	}
	if err == nil {
		return exitOK
	}
	a.err.report(a.io.Err, err)
	return exitCodeOf(err)
}

// colours decides who gets colours: a terminal, unless NO_COLOR, TERM=dumb or
// --no-color say otherwise.
func (a *app) colours() {
	allowed := !a.opt.noColor && a.io.Getenv("NO_COLOR") == "" && a.io.Getenv("TERM") != "dumb"
	a.out.on = allowed && a.io.OutTTY
	a.err.on = allowed && a.io.ErrTTY
}

// prepare reads the global flags; it runs before every command.
func (a *app) prepare(*cobra.Command, []string) error {
	a.colours()
	a.asker.enabled = a.io.InTTY && a.io.ErrTTY && !a.opt.noInput
	given, origin := a.opt.output, "--output"
	if given == "" {
		given, origin = cmp.Or(a.io.Getenv("HOLDFAST_OUTPUT"), string(tableFormat)), "HOLDFAST_OUTPUT"
	}
	switch given {
	case "table", "json", "yaml":
		a.format = format(given)
	case "wide":
		a.format, a.wide = tableFormat, true
	case "jsonl":
		a.format = jsonFormat
	default:
		f := usage("%s: unknown format %q; it is one of table, wide, json, yaml", origin, given)
		if hint := didYouMean(given, formats()); hint != "" {
			f.addHint("%s", hint)
		}
		return f
	}
	if a.opt.timeout != "" {
		d, err := parseDuration(a.opt.timeout)
		if err != nil || d <= 0 {
			return usage("--timeout: %q is not a time; write 15s or 2m", a.opt.timeout)
		}
		a.timeout = d
	}
	return nil
}

// connect resolves where the servers are and prepares the connections.
func (a *app) connect() error {
	if a.remote != nil {
		return nil
	}
	s, err := a.resolve()
	if err != nil {
		return err
	}
	if a.opt.context != "" && a.opt.addr == "" && s.Addresses.Origin != "HOLDFAST_ADDR" && a.io.Getenv("HOLDFAST_ADDR") != "" {
		a.notice("--context %s is used instead of HOLDFAST_ADDR", a.opt.context)
	}
	addrs, err := parseAddresses(s.Addresses.Value)
	if err != nil {
		return err
	}
	r, err := a.dial(s, addrs)
	if err != nil {
		return err
	}
	r.patient = a.opt.timeout != ""
	r.notice = a.notice
	a.settings, a.remote = s, r
	return nil
}

// dial prepares connections with the settings' certificates.
func (a *app) dial(s *settings, addrs []string) (*remote, error) {
	if s.CA.Value == "" && s.Cert.Value == "" && s.Key.Value == "" {
		return newRemote(addrs, nil, a.timeout)
	}
	for _, file := range []struct{ flag, value string }{
		{"--tls-ca", s.CA.Value}, {"--tls-cert", s.Cert.Value}, {"--tls-key", s.Key.Value},
	} {
		if file.value == "" {
			return nil, usage("%s is missing: TLS needs the CA, a certificate and its key", file.flag).
				hint("make them with `holdfast tls ca create` and `holdfast tls cert create --role operator`")
		}
	}
	config, err := pki.ClientConfig(s.CA.Value, s.Cert.Value, s.Key.Value, pki.RoleServer)
	if err != nil {
		f := fail(exitAuth, "the TLS files cannot be used: %v", err)
		f.cause = err
		return nil, f
	}
	return newRemote(addrs, config, a.timeout)
}

// namespace is the namespace of this run.
func (a *app) namespace() string { return a.settings.Namespace.Value }

// learnTime notes the cluster's clock: remaining times are right although this
// computer's clock is not.
func (a *app) learnTime(h *holdfastv1.Header) {
	if t := h.GetStateTime(); t != nil {
		a.skew = t.AsTime().Sub(a.now())
	}
}

// stateTime estimates the cluster's clock.
func (a *app) stateTime() time.Time { return a.now().Add(a.skew) }

// actor is what this user calls themself. Servers believe certificates only and
// record this as a claim.
func (a *app) actor() string {
	name := cmp.Or(a.io.Getenv("USER"), a.io.Getenv("USERNAME"))
	if name == "" {
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = runtime.GOOS
	}
	return cmp.Or(name, "unknown") + "@" + host
}

// notice tells something that may be ignored.
func (a *app) notice(format string, args ...any) {
	if !a.opt.quiet {
		writef(a.io.Err, "%s %s\n", a.err.bold("Note:"), printable(fmt.Sprintf(format, args...)))
	}
}

// warn tells something that must not be ignored; it is not silenced by -q.
func (a *app) warn(format string, args ...any) {
	writef(a.io.Err, "%s %s\n", a.err.yellow("Warning:"), printable(fmt.Sprintf(format, args...)))
}

// say writes one line of data in the table format.
func (a *app) say(format string, args ...any) error {
	return a.flush([]byte(printable(fmt.Sprintf(format, args...)) + "\n"))
}

// inNamespace is added to messages where the namespace is not the default one.
func (a *app) inNamespace() string {
	if a.namespace() == document.DefaultNamespace {
		return ""
	}
	return " in namespace " + a.namespace()
}
