package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// fleetCommand is everything about what the fleet sees.
func (a *app) fleetCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: "fleet [DEPENDENCY]", Short: "Show what instances tell each other about their dependencies",
		Long: `Show which dependencies instances find broken: the verdict on each, with its reason, and who says
what. A cell of the matrix is an opinion with failures and calls; one in parentheses does not
count. Healthy dependencies are not listed. OPEN means that instances which suspect the dependency
themselves stop calling it; "open (advise)" is only shown.`,
		Example: `holdfast fleet
holdfast fleet payments
holdfast fleet --watch
holdfast fleet explain payments`,
		Args: cobra.ArbitraryArgs, ValidArgsFunction: a.completeFleet,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage("unexpected argument %q", args[1]).hint("usage: %s", cmd.UseLine())
		}
		if err := a.connect(); err != nil {
			return err
		}
		dependency := strings.Join(args, "")
		if watch {
			return a.watchFleet(cmd.Context(), dependency)
		}
		return a.showFleet(cmd.Context(), dependency)
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on showing it as it changes, until Ctrl-C")
	cmd.AddCommand(a.fleetExplain())
	return cmd
}

// fleet asks a server for its picture. One of the version before fleet health is
// passed over: during an upgrade the next one may have it.
func (a *app) fleet(ctx context.Context, dependency string) (fleetView, error) {
	var res *holdfastv1.GetFleetResponse
	var err error
	for range a.remote.addrs {
		res, err = query(ctx, a.remote, &holdfastv1.GetFleetRequest{Namespace: a.namespace(), Dependency: dependency},
			func(c *grpc.ClientConn) func(context.Context, *holdfastv1.GetFleetRequest, ...grpc.CallOption) (*holdfastv1.GetFleetResponse, error) {
				return holdfastv1.NewFleetServiceClient(c).GetFleet
			})
		if status.Code(err) != codes.Unimplemented {
			break
		}
		a.remote.current = (a.remote.current + 1) % len(a.remote.addrs)
	}
	if err != nil {
		return fleetView{}, a.rpcFailure("show the fleet", err)
	}
	return fleetViewOf(res.GetFleet()), nil
}

func (a *app) showFleet(ctx context.Context, dependency string) error {
	v, err := a.fleet(ctx, dependency)
	if err != nil {
		return err
	}
	return a.tellFleet(v, dependency)
}

// tellFleet writes a picture.
func (a *app) tellFleet(v fleetView, dependency string) error {
	if a.format != tableFormat {
		return a.emit(v)
	}
	if len(v.Dependencies) > 0 {
		text, err := a.fleetText(v)
		if err != nil {
			return err
		}
		if err := a.flush(text); err != nil {
			return err
		}
	}
	a.notice("%s", a.sumFleet(v, dependency))
	return nil
}

// sumFleet sums a picture up.
func (a *app) sumFleet(v fleetView, dependency string) string {
	seen := ", as server " + v.ServerID + " sees it"
	switch {
	case len(v.Dependencies) == 0 && dependency != "":
		return "nobody" + a.inNamespace() + " says anything about " + dependency + seen
	case len(v.Dependencies) == 0:
		return "nobody" + a.inNamespace() + " finds anything broken" + seen + "; instances for which all is well say nothing"
	}
	open := 0
	for _, d := range v.Dependencies {
		if d.Verdict.Open {
			open++
		}
	}
	broken := "none is"
	if open > 0 {
		broken = humanCount(open) + " " + verb(open, "is", "are")
	}
	n := len(v.Dependencies)
	who := plural(int(v.Instances), "instance") + " on " + plural(int(v.Hosts), "host")
	return plural(n, "dependency") + a.inNamespace() + " " + verb(n, "is", "are") + " spoken of by " + who + "; " + broken + " held to be broken"
}

// fleetExplain is `fleet explain DEPENDENCY`.
func (a *app) fleetExplain() *cobra.Command {
	return &cobra.Command{
		Use: "explain DEPENDENCY", Aliases: []string{"why", "describe"}, Short: "Say why the verdict on a dependency is what it is",
		Long: `Say why the verdict on a dependency is what it is: how many hosts and zones find it broken and how
many are needed, what those say who make no calls, and each report with whether it counts, and why not.`,
		Example: "holdfast fleet explain payments\nholdfast fleet explain payments -o json",
		Args:    exactArgs("DEPENDENCY"), ValidArgsFunction: a.completeFleet,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.connect(); err != nil {
				return err
			}
			v, err := a.fleet(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			at := slices.IndexFunc(v.Dependencies, func(d dependencyView) bool { return d.Name == args[0] })
			if at < 0 {
				return a.unspoken(cmd.Context(), args[0])
			}
			d := v.Dependencies[at]
			if a.format != tableFormat {
				return a.emit(struct {
					head
					dependencyView
				}{newHead("FleetDependency"), d})
			}
			text, err := a.explainText(d)
			if err != nil {
				return err
			}
			return a.flush(text)
		},
	}
}

// unspoken says that nobody says anything about a dependency: it is well, or its
// name is misspelt.
func (a *app) unspoken(ctx context.Context, dependency string) error {
	f := fail(exitNotFound, "nobody%s says anything about %q: it is well, or nobody calls it", a.inNamespace(), dependency)
	v, err := a.fleet(ctx, "")
	if err != nil {
		return f
	}
	var names []string
	for _, d := range v.Dependencies {
		names = append(names, d.Name)
	}
	if hint := didYouMean(dependency, names); hint != "" {
		return f.hint("%s", hint)
	}
	return f.hint("`holdfast fleet` lists what is spoken of")
}

// completeFleet completes the names of dependencies that are spoken of.
func (a *app) completeFleet(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	var out []string
	if len(args) == 0 && a.quickly(cmd) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		if v, err := a.fleet(ctx, ""); err == nil {
			for _, d := range v.Dependencies {
				if strings.HasPrefix(d.Name, typed) {
					out = append(out, d.Name+"\t"+d.Verdict.word())
				}
			}
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// watchFleet shows the fleet as it changes: a terminal is drawn anew, anything else
// gets a line for each change, and JSON or YAML each picture.
func (a *app) watchFleet(ctx context.Context, dependency string) error {
	var last *fleetView
	show := func(v fleetView) error {
		defer func() { last = &v }()
		switch {
		case a.format != tableFormat:
			return a.emitLine(v)
		case a.io.OutTTY:
			return a.drawFleet(v, dependency)
		case last == nil:
			return a.tellFleet(v, dependency)
		}
		var buf bytes.Buffer
		for _, line := range fleetChanges(*last, v) {
			writef(&buf, "%s %s\n", a.now().Format("15:04:05.000"), printable(line))
		}
		return a.flush(buf.Bytes())
	}
	return a.followFleet(ctx, dependency, show)
}

// emitLine writes a value as one line of JSON or one document of YAML.
func (a *app) emitLine(v any) error {
	var buf bytes.Buffer
	if a.format == yamlFormat {
		buf.WriteString("---\n")
	}
	if err := encode(&buf, a.format, v, false); err != nil {
		return err
	}
	return a.flush(buf.Bytes())
}

// drawFleet draws a picture over the one before.
func (a *app) drawFleet(v fleetView, dependency string) error {
	text := []byte(a.sumFleet(v, dependency) + "\n")
	if len(v.Dependencies) > 0 {
		tables, err := a.fleetText(v)
		if err != nil {
			return err
		}
		text = append(tables, text...)
	}
	const home, clear = "\x1b[H", "\x1b[J"
	stamp := a.out.dim(a.now().Format("15:04:05") + "  Ctrl-C ends")
	return a.flush([]byte(home + clear + stamp + "\n\n" + string(text)))
}

// followFleet calls show for every picture until ctx ends or show fails. A stream
// that breaks is opened anew, at the next server.
func (a *app) followFleet(ctx context.Context, dependency string, show func(fleetView) error) error {
	begin, pause, seen := time.Now(), minPause, false
	for failures := 0; ; {
		shown, err := a.streamFleet(ctx, dependency, show)
		missing := status.Code(err) == codes.Unimplemented
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errNotShown):
			return err
		case !repeatable(err) && !errors.Is(err, io.EOF) && !errors.Is(err, errLost) && !missing:
			return a.rpcFailure("watch the fleet", err)
		case shown:
			seen, failures, pause = true, 0, minPause
		}
		failures++
		if !seen && failures >= len(a.remote.addrs) && (missing || time.Since(begin) > giveUpEarly) {
			return a.rpcFailure("watch the fleet", err)
		}
		if seen && failures == 1 {
			a.notice("%s; reconnecting", briefly(err))
		}
		a.remote.current = (a.remote.current + 1) % len(a.remote.addrs)
		if failures%len(a.remote.addrs) == 0 {
			if !sleep(ctx, pause/2+mathrand.N(pause/2)) {
				return nil
			}
			pause = min(2*pause, 5*time.Second)
		}
	}
}

// errNotShown is that nobody reads what is shown.
var errNotShown = errors.New("cannot show the fleet")

// streamFleet follows one stream, which always ends with an error. It tells whether
// a picture came.
func (a *app) streamFleet(ctx context.Context, dependency string, show func(fleetView) error) (shown bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := holdfastv1.NewFleetServiceClient(a.remote.conns[a.remote.current]).WatchFleet(ctx, &holdfastv1.WatchFleetRequest{
		Namespace: a.namespace(), Dependency: dependency,
	})
	if err != nil {
		return false, err
	}
	for {
		res, err := stream.Recv()
		if err != nil {
			return shown, err
		}
		shown = true
		if err := show(fleetViewOf(res.GetFleet())); err != nil {
			return shown, fmt.Errorf("%w: %w", errNotShown, err)
		}
	}
}
