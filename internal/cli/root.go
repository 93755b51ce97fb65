package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// root builds the tree of commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "holdfast",
		Short: "Decide what a fleet does while its dependencies fail.",
		Long:  "holdfast decides what a fleet of services does while the things they depend on fail:\nflags, degradation modes, resilience policies, and temporary overrides of them.",
		Example: `holdfast mode set storefront read-only --for 30m --reason "db failover"
holdfast mode list
holdfast mode clear storefront
holdfast apply -f definitions/ --dry-run
holdfast watch`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: a.prepare,
		Args:              cobra.ArbitraryArgs, // groupRun answers for unknown commands
		RunE:              a.groupRun,
	}
	root.SetIn(a.io.In)
	root.SetOut(a.io.Out)
	root.SetErr(a.io.Err)
	root.CompletionOptions.HiddenDefaultCmd = false
	a.globalFlags(root.PersistentFlags())
	a.help(root)

	root.AddGroup(
		&cobra.Group{ID: "incident", Title: "During an incident"},
		&cobra.Group{ID: "declare", Title: "What is declared"},
		&cobra.Group{ID: "observe", Title: "What happened"},
		&cobra.Group{ID: "operate", Title: "The servers and this program"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("incident", a.modeCommand(), a.breakerCommand(), a.overrideCommand())
	add("declare", a.applyCommand(), a.validateCommand(), a.flagCommand(), a.policyCommand(), a.importCommand(), a.exportCommand())
	add("observe", a.instancesCommand(), a.fleetCommand(), a.watchCommand(), a.auditCommand())
	add("operate", a.clusterCommand(), a.gossipCommand(), a.tlsCommand(), a.contextCommand(), a.versionCommand())
	root.SetCompletionCommandGroupID("operate")
	root.SetHelpCommandGroupID("operate")
	return root
}

// globalFlags declares the flags of every command.
func (a *app) globalFlags(f *pflag.FlagSet) {
	o := &a.opt
	f.StringVar(&o.addr, "addr", "", "servers, `HOST:PORT,...`; tried in this order (HOLDFAST_ADDR; default "+defaultAddr+")")
	f.StringVar(&o.context, "context", "", "`name` of the context to use (HOLDFAST_CONTEXT)")
	f.StringVarP(&o.namespace, "namespace", "n", "", "`namespace` of the resources (HOLDFAST_NAMESPACE; default \"default\")")
	f.StringVarP(&o.output, "output", "o", "", "`format` of the data: table, wide, json or yaml (HOLDFAST_OUTPUT; default table)")
	f.StringVar(&o.timeout, "timeout", "", "`time` for an operation with all its retries (default 15s; unless given, 2s while no server answers at all)")
	f.StringVar(&o.tlsCA, "tls-ca", "", "`file` with the CA's certificate (HOLDFAST_TLS_CA)")
	f.StringVar(&o.tlsCert, "tls-cert", "", "`file` with your certificate (HOLDFAST_TLS_CERT)")
	f.StringVar(&o.tlsKey, "tls-key", "", "`file` with its key (HOLDFAST_TLS_KEY)")
	f.BoolVar(&o.noColor, "no-color", false, "no colours (also NO_COLOR)")
	f.BoolVar(&o.noInput, "no-input", false, "never ask; fail and name the flag that is missing")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no notes and no progress; warnings and errors stay")
}

// group returns a command that only holds others.
func (a *app) group(use, short, example string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Example: example, Args: cobra.ArbitraryArgs, RunE: a.groupRun}
	c.AddCommand(children...)
	return c
}

// groupRun answers a command line that stops at a group or names a command that
// the group does not have.
func (a *app) groupRun(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		if cmd.HasParent() {
			cmd.SetOut(a.io.Err)
			_ = cmd.Help()
			return &failure{code: exitUsage}
		}
		return cmd.Help()
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	f := usage("unknown command %q for %q", args[0], cmd.CommandPath())
	if hint := didYouMean(args[0], names); hint != "" {
		return f.hint("%s", hint)
	}
	return f.hint("it is one of %s; see `%s --help`", strings.Join(names, ", "), cmd.CommandPath())
}

// exactArgs requires one argument per name, and says by name what is missing.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > len(names) {
			return usage("unexpected argument %q", args[len(names)]).hint("usage: %s", cmd.UseLine())
		}
		return missingArgs(cmd, args, names)
	}
}

// atLeastArgs is exactArgs, and the last argument may be repeated.
func atLeastArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error { return missingArgs(cmd, args, names) }
}

func missingArgs(cmd *cobra.Command, args, names []string) error {
	if len(args) < len(names) {
		return usage("missing %s", strings.Join(names[len(args):], " and ")).hint("usage: %s", cmd.UseLine())
	}
	for i, arg := range args {
		if arg == "" {
			return usage("%s is empty", names[min(i, len(names)-1)]).hint("usage: %s", cmd.UseLine())
		}
	}
	return nil
}

// flagError turns a parse error of the flags into one with a suggestion. Where the
// command itself is unknown, its flags must be, and the command is what was wrong.
func flagError(cmd *cobra.Command, err error) error {
	if typed := cmd.Flags().Args(); cmd.HasAvailableSubCommands() && len(typed) > 0 {
		return cmd.RunE(cmd, typed)
	}
	f := usage("%s", oneLine(err.Error()))
	if name, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok {
		var names []string
		collect := func(fl *pflag.Flag) { names = append(names, fl.Name) }
		cmd.Flags().VisitAll(collect)
		cmd.InheritedFlags().VisitAll(collect)
		for _, near := range suggest(name, names) {
			f.addHint("did you mean --%s?", near)
			break
		}
	}
	return f.hint("see `%s --help`", cmd.CommandPath())
}

// exitCodeText is the table of exit codes for help.
func exitCodeText() string {
	var b strings.Builder
	for _, row := range ExitCodes() {
		fmt.Fprintf(&b, "%5d  %-14s %s\n", row.Code, row.Name, row.Meaning)
	}
	return b.String()
}
