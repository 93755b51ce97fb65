// Shop is a small e-commerce system on Holdfast: five gRPC services in one program
// with several roles, their customers, and a demo that runs all of it.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/term"

	"github.com/holdfast-dev/holdfast/examples/shop/internal/demo"
	"github.com/holdfast-dev/holdfast/examples/shop/internal/fleet"
	"github.com/holdfast-dev/holdfast/examples/shop/internal/service"
)

//go:embed definitions/*.yaml
var definitions embed.FS

const usage = `shop ROLE [flags]; --help tells each role's.

  demo           run the whole shop with its control plane, and show it
  kill NAME      end processes of a running demo: controlplane, payments, payments-1, …
  start NAME     start them again
  load           be the customers of a shop that runs, and show what they get
  storefront, orders, payments, inventory, notifications
                 be an instance of that service
`

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(usageError)):
		fmt.Fprintln(os.Stderr, "shop: "+err.Error())
		os.Exit(exitUsage)
	default:
		fmt.Fprintln(os.Stderr, "shop: "+err.Error())
		os.Exit(exitFailed)
	}
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func run(ctx context.Context, args []string, out, errOut io.Writer) error {
	if len(args) == 0 {
		return usageError{errors.New("no role given; see shop --help")}
	}
	role, args := args[0], args[1:]
	switch {
	case role == "demo":
		return runDemo(ctx, args, out, errOut)
	case role == "load":
		return runLoad(ctx, args, out, errOut)
	case role == "kill" || role == "start":
		return runControl(ctx, role, args, out, errOut)
	case slices.Contains(service.Names(), role):
		return runService(ctx, role, args, errOut)
	case role == "help" || role == "-h" || role == "--help":
		_, err := io.WriteString(out, usage)
		return err
	default:
		return usageError{fmt.Errorf("no role %q; see shop --help", role)}
	}
}

// newFlags returns the flags of a role, and parse, which reads them and exactly the
// arguments named.
func newFlags(role string, errOut io.Writer, names ...string) (flags *flag.FlagSet, parse func([]string) error) {
	flags = flag.NewFlagSet("shop "+strings.Join(append([]string{role}, names...), " "), flag.ContinueOnError)
	flags.SetOutput(errOut)
	return flags, func(args []string) error {
		if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
			return err
		} else if err != nil {
			return usageError{err}
		}
		if flags.NArg() != len(names) {
			return usageError{fmt.Errorf("%s takes %d arguments beside its flags, not %d", role, len(names), flags.NArg())}
		}
		return nil
	}
}

// peerFlags declares --orders and so on, which say where instances are.
func peerFlags(flags *flag.FlagSet, services ...string) func() map[string][]string {
	values := map[string]*string{}
	for _, name := range services {
		values[name] = flags.String(name, "", "`HOST:PORT,...` of the instances of "+name)
	}
	return func() map[string][]string {
		peers := map[string][]string{}
		for name, value := range values {
			peers[name] = split(*value)
		}
		return peers
	}
}

func split(list string) []string {
	return slices.DeleteFunc(strings.Split(list, ","), func(s string) bool { return s == "" })
}

// runService is an instance of a service.
func runService(ctx context.Context, role string, args []string, errOut io.Writer) error {
	flags, parse := newFlags(role, errOut)
	config := service.Config{Service: role}
	flags.StringVar(&config.Instance, "instance", "", "its `id`; drawn where none is given")
	flags.StringVar(&config.Zone, "zone", "eu-1", "its label zone")
	flags.StringVar(&config.Listen, "listen", "127.0.0.1:0", "its `address`")
	flags.StringVar(&config.CacheDir, "cache-dir", "", "the `directory` where the SDK keeps its view")
	servers := flags.String("servers", "127.0.0.1:7400", "`HOST:PORT,...` of the control plane")
	peers := peerFlags(flags, service.Names()...)
	if err := parse(args); err != nil {
		return err
	}
	config.Servers, config.Peers = split(*servers), peers()
	return service.Run(ctx, config, slog.New(slog.NewTextHandler(errOut, nil)))
}

// runControl kills or starts processes of a running demo.
func runControl(ctx context.Context, verb string, args []string, out, errOut io.Writer) error {
	addr := os.Getenv("SHOP_DEMO")
	if addr == "" {
		addr = demo.ControlAddr(demo.DefaultBase)
	}
	flags, parse := newFlags(verb, errOut, "NAME")
	flags.StringVar(&addr, "demo", addr, "`HOST:PORT` of the demo (SHOP_DEMO)")
	if err := parse(args); err != nil {
		return err
	}
	names, err := demo.Ask(ctx, addr, verb, flags.Arg(0))
	if err != nil {
		return err
	}
	done := map[string]string{"kill": "killed", "start": "started"}[verb]
	if len(names) == 0 {
		names = []string{"nothing: that is how it is already"}
	}
	_, err = fmt.Fprintf(out, "%s %s\n", done, strings.Join(names, ", "))
	return err
}

// runDemo runs everything until ctx ends, or plays the script.
func runDemo(ctx context.Context, args []string, out, errOut io.Writer) error {
	flags, parse := newFlags("demo", errOut)
	options := demo.Options{Progress: out}
	flags.StringVar(&options.Programs, "programs", "", "the `directory` of controlplane, holdfast and shop; this program's where none is given")
	flags.IntVar(&options.PortBase, "port-base", demo.DefaultBase, "the first of 50 `ports`; 0 finds free ones")
	flags.StringVar(&options.Dir, "dir", "", "the `directory` for data and logs, which is kept; a temporary one where none is given")
	flags.Float64Var(&options.Rate, "rate", demo.DefaultRate, "`calls` per second")
	script := flags.Bool("script", false, "play what the README describes, check it, and end")
	if err := parse(args); err != nil {
		return err
	}
	if options.Rate <= 0 {
		return usageError{errors.New("--rate must be more than 0")}
	}
	if err := complete(&options); err != nil {
		return err
	}
	d, err := demo.Start(ctx, options)
	if err != nil {
		return err
	}
	if *script {
		return errors.Join(d.Script(ctx), d.Close())
	}
	hints := d.Hints() + "\n"
	_, _ = io.WriteString(out, hints)
	show(ctx, out, fleet.Above{Lines: strings.Count(hints, "\n"), Elsewhere: "  what to try: examples/shop/README.md"}, d.Look)
	_, _ = fmt.Fprintln(out, "\nstopping …")
	return d.Close()
}

// complete fills in where this program is, and the definitions.
func complete(options *demo.Options) error {
	if options.Programs == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find the programs: %w; say where with --programs", err)
		}
		options.Programs = filepath.Dir(self)
	}
	for _, name := range []string{"controlplane", "holdfast", "shop"} {
		if _, err := os.Stat(filepath.Join(options.Programs, name)); err != nil {
			return fmt.Errorf("find %s: %w; build it with `make demo`, or say where it is with --programs", name, err)
		}
	}
	files, err := definitions.ReadDir("definitions")
	if err != nil {
		return fmt.Errorf("read definitions: %w", err)
	}
	options.Definitions = map[string][]byte{}
	for _, file := range files {
		if options.Definitions[file.Name()], err = definitions.ReadFile("definitions/" + file.Name()); err != nil {
			return fmt.Errorf("read definitions: %w", err)
		}
	}
	return nil
}

// terminal returns the size of what out is, if it is a terminal, and whether it
// shows colours.
func terminal(out io.Writer) (size func() (columns, rows int, ok bool), color bool) {
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return func() (int, int, bool) { return 0, 0, false }, false
	}
	return func() (int, int, bool) {
		columns, rows, err := term.GetSize(int(file.Fd()))
		return columns, rows, err == nil
	}, os.Getenv("NO_COLOR") == ""
}
