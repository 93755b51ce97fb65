package cli

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// contextCommand is everything about named contexts.
func (a *app) contextCommand() *cobra.Command {
	return a.group("context", "Named contexts: which cluster, namespace and certificates",
		`holdfast context set prod --addr 10.0.0.1,10.0.0.2,10.0.0.3 --tls-ca ca.pem --tls-cert me.pem --tls-key me.key
holdfast context use prod
holdfast context show`,
		a.contextList(), a.contextSet(), a.contextUse(), a.contextShow(), a.contextDelete())
}

// contextView is a context in JSON and YAML.
type contextView struct {
	Name    string `json:"name"`
	Current bool   `json:"current"`
	namedContext
}

func (a *app) contextList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the contexts", Args: exactArgs(), Example: "holdfast context list",
		RunE: func(*cobra.Command, []string) error {
			file, path, err := a.readContexts()
			if err != nil {
				return err
			}
			if a.format != tableFormat {
				list := listView[contextView]{head: newHead("ContextList"), Items: []contextView{}}
				for _, name := range file.names() {
					list.Items = append(list.Items, contextView{name, name == file.Current, *file.Contexts[name]})
				}
				return a.emit(list)
			}
			if len(file.Contexts) == 0 {
				a.notice("there are no contexts in %s", path)
				return nil
			}
			t := table{paint: a.headRow}
			t.row("", "NAME", "ADDRESSES", "NAMESPACE", "TLS")
			for _, name := range file.names() {
				c, mark, tls := file.Contexts[name], "", "no"
				if name == file.Current {
					mark = "*"
				}
				if c.TLSCert != "" {
					tls = c.TLSCert
				}
				t.row(mark, name, dash(strings.Join(c.Addresses, ",")), dash(c.Namespace), tls)
			}
			return t.write(a.io.Out)
		},
	}
}

// dash stands for nothing in a table.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (a *app) contextSet() *cobra.Command {
	var use bool
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Create a context or change what the global flags say",
		Long:    "Create a context, or change it: --addr, --namespace and the TLS flags are written to it, what is\nnot given stays. The first context becomes the current one.",
		Example: "holdfast context set prod --addr 10.0.0.1,10.0.0.2,10.0.0.3 -n shop\nholdfast context set prod --tls-ca ca.pem --tls-cert me.pem --tls-key me.key --use",
		Args:    exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, path, err := a.readContexts()
			if err != nil {
				return err
			}
			c, created := file.Contexts[args[0]], false
			if c == nil {
				c, created = &namedContext{}, true
			}
			if a.opt.addr != "" {
				if c.Addresses, err = parseAddresses(a.opt.addr); err != nil {
					return err
				}
			}
			if a.opt.namespace != "" {
				c.Namespace = a.opt.namespace
			}
			for _, f := range []struct {
				given string
				into  *string
			}{{a.opt.tlsCA, &c.TLSCA}, {a.opt.tlsCert, &c.TLSCert}, {a.opt.tlsKey, &c.TLSKey}} {
				if f.given == "" {
					continue
				}
				// The context is used from any directory.
				if *f.into, err = filepath.Abs(f.given); err != nil {
					return fmt.Errorf("resolve %s: %w", f.given, err)
				}
				if !exists(f.given) {
					a.warn("%s does not exist yet", f.given)
				}
			}
			if file.Contexts == nil {
				file.Contexts = map[string]*namedContext{}
			}
			file.Contexts[args[0]] = c
			if use || file.Current == "" {
				file.Current = args[0]
			}
			if err := writeContexts(path, file); err != nil {
				return err
			}
			verb := "changed"
			if created {
				verb = "created"
			}
			if file.Current == args[0] {
				verb += " and in use"
				a.warnOverruled(args[0])
			}
			return a.say("context %s %s", args[0], verb)
		},
		ValidArgsFunction: a.completeContexts,
	}
	cmd.Flags().BoolVar(&use, "use", false, "make it the current one")
	return cmd
}

// warnOverruled warns where the environment wins over the current context.
func (a *app) warnOverruled(current string) {
	if a.io.Getenv("HOLDFAST_ADDR") != "" {
		a.warn("HOLDFAST_ADDR is set and wins over the current context")
	}
	if env := a.io.Getenv("HOLDFAST_CONTEXT"); env != "" && env != current {
		a.warn("HOLDFAST_CONTEXT is set to %s and wins over the current context", env)
	}
}

func (a *app) contextUse() *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Make a context the current one", Example: "holdfast context use prod",
		Args: exactArgs("NAME"), ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			file, path, err := a.readContexts()
			if err != nil {
				return err
			}
			if _, err := file.find(args[0]); err != nil {
				return err
			}
			file.Current = args[0]
			if err := writeContexts(path, file); err != nil {
				return err
			}
			a.warnOverruled(args[0])
			return a.say("context %s in use", args[0])
		},
	}
}

func (a *app) contextShow() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show what is in force, and where each value comes from", Args: exactArgs(),
		Example: "holdfast context show\nholdfast context show --context prod",
		RunE: func(*cobra.Command, []string) error {
			s, err := a.resolve()
			if err != nil {
				return err
			}
			if a.format != tableFormat {
				return a.emit(struct {
					head
					*settings
				}{newHead("Settings"), s})
			}
			t := table{paint: a.headRow}
			t.row("SETTING", "VALUE", "FROM")
			for _, row := range []struct {
				name string
				s    setting
			}{
				{"context", s.Context},
				{"addresses", s.Addresses},
				{"namespace", s.Namespace},
				{"tls ca", s.CA},
				{"tls cert", s.Cert},
				{"tls key", s.Key},
			} {
				t.row(row.name, dash(row.s.Value), dash(row.s.Origin))
			}
			return t.write(a.io.Out)
		},
	}
}

func (a *app) contextDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Aliases: []string{"rm"}, Short: "Delete a context", Example: "holdfast context delete staging",
		Args: exactArgs("NAME"), ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			file, path, err := a.readContexts()
			if err != nil {
				return err
			}
			if _, err := file.find(args[0]); err != nil {
				return err
			}
			delete(file.Contexts, args[0])
			if file.Current == args[0] {
				file.Current = ""
				a.notice("it was the current context; choose another with `holdfast context use`")
			}
			if err := writeContexts(path, file); err != nil {
				return err
			}
			return a.say("context %s deleted", args[0])
		},
	}
}
