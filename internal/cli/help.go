package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpTemplate shows what a command does, then how it is used by example, then
// the rest.
const helpTemplate = `{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}
{{end}}{{if .HasExample}}
Examples:
{{indent .Example}}
{{end}}{{if .Runnable}}
Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND [flags]{{else}}{{.UseLine}}{{end}}
{{end}}{{if gt (len .Aliases) 0}}
Also:
  {{.NameAndAliases}}
{{end}}{{if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{if eq (len .Groups) 0}}
Commands:{{range $cmds}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}
{{else}}{{range $group := .Groups}}
{{.Title}}:{{range $cmds}}{{if (and (eq .GroupID $group.ID) (or .IsAvailableCommand (eq .Name "help")))}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}
{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}
Flags:
{{flagTable .LocalFlags | trimTrailingWhitespaces}}
{{end}}{{if .HasHelpSubCommands}}
Topics (holdfast help TOPIC):{{range .Commands}}{{if .IsAdditionalHelpTopicCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}
{{end}}{{if .HasAvailableInheritedFlags}}
Flags of every command: holdfast help flags. Exit codes: holdfast help exit-codes.
{{end}}`

// topicTemplate shows a help topic.
const topicTemplate = "{{.Long | trimTrailingWhitespaces}}\n"

// flagTable lists flags in two columns.
func flagTable(flags *pflag.FlagSet) string {
	var rows [][2]string
	width := 0
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, text := pflag.UnquoteUsage(f)
		left := "    --" + f.Name
		if f.Shorthand != "" {
			left = "-" + f.Shorthand + ", --" + f.Name
		}
		if f.Value.Type() != "bool" {
			left += " " + strings.ToUpper(value)
		}
		width = max(width, len(left))
		rows = append(rows, [2]string{left, text})
	})
	var b strings.Builder
	for _, row := range rows {
		fmt.Fprintf(&b, "  %-*s  %s\n", width, row[0], row[1])
	}
	return b.String()
}

// help installs the templates, the topics and the help command.
func (a *app) help(root *cobra.Command) {
	cobra.AddTemplateFunc("indent", func(s string) string {
		return "  " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n  ")
	})
	cobra.AddTemplateFunc("flagTable", flagTable)
	root.SetHelpTemplate(helpTemplate)
	root.SetUsageTemplate(helpTemplate)
	root.SetFlagErrorFunc(flagError)
	root.InitDefaultHelpFlag()
	root.PersistentFlags().BoolP("help", "h", false, "help for the command")

	topic := func(name, short, long string) {
		c := &cobra.Command{Use: name, Short: short, Long: long}
		c.SetHelpTemplate(topicTemplate)
		root.AddCommand(c)
	}
	topic("exit-codes", "what the exit codes mean", "Exit codes:\n\n"+exitCodeText())
	topic("flags", "the flags of every command", "Flags of every command:\n\n"+flagTable(root.PersistentFlags()))
	topic("environment", "variables and the file of contexts", environmentText)
	topic("documents", "the files that apply reads", documentsText)
	topic("output", "the shape of JSON and YAML output", outputText)

	root.SetHelpCommand(&cobra.Command{
		Use: "help [COMMAND]", Short: "help for a command or a topic",
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			target, _, err := root.Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var out []string
			for _, c := range target.Commands() {
				if c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand() {
					out = append(out, c.Name())
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			target, rest, err := root.Find(args)
			if err != nil || target == nil {
				return a.groupRun(root, args)
			}
			if len(rest) > 0 && target.HasSubCommands() {
				return a.groupRun(target, rest)
			}
			return target.Help()
		},
	})
}

const environmentText = `Environment:

  HOLDFAST_ADDR          servers, HOST:PORT,...
  HOLDFAST_CONTEXT       name of the context to use
  HOLDFAST_NAMESPACE     namespace of the resources
  HOLDFAST_OUTPUT        table, wide, json or yaml
  HOLDFAST_TLS_CA        file with the CA's certificate
  HOLDFAST_TLS_CERT      file with your certificate
  HOLDFAST_TLS_KEY       file with its key
  HOLDFAST_CLI_CONFIG    file of named contexts (default ~/.config/holdfast/config.yaml)
  NO_COLOR               no colours

Precedence: a flag, then a context named by --context, then the environment, then the
context of HOLDFAST_CONTEXT or the current one, then the default. ` + "`holdfast context show`" + `
prints each value with its origin.`

const documentsText = `Documents:

A file holds one or more documents, YAML separated by --- or JSON one after the other:

  kind: Flag              # Flag, Mode or Policy
  name: new-checkout
  namespace: default      # optional; else --namespace
  labels:                 # optional; --prune -l selects by them
    team: shop
  spec:                   # the definition
    state: ENABLED
    variants: {"on": true, "off": false}
    defaultVariant: "off"

` + "`kind: List` with `items:` holds several. `apiVersion` may be " + apiVersion + "; `status` is ignored, so that\n" +
	"what `flag list -o yaml` prints can be applied. Overrides are temporary and are never applied\nfrom files."

const outputText = `Output:

JSON and YAML have the same shape. Keys are snake_case but for apiVersion.

  every answer     apiVersion: ` + apiVersion + `, kind
  a resource       kind (Flag, Mode, Policy, Override), name, namespace, labels, spec,
                   status {create_revision, mod_revision, version, create_time, update_time,
                   end_time, actor, actor_verified, reason}
  a list           kind List (AuditList, MemberList, ContextList), revision, items
  a write          kind ApplyResult, dry_run, revision, transactions, created, updated, unchanged,
                   deleted, items [{change, kind, name, namespace, end_time}], warnings,
                   wait {reached, servers [{server_id, revision, reached, error}], instances
                   {reached, connected, obeying, impaired, behind, impaired_instances, unreachable};
                   null where they could not be counted},
                   preview {instance_labels, levels, flags, calls, policies, instances} of a dry
                   run of ` + "`mode set`" + `
  instances        kind InstanceList, revision, items [{id, service, namespace, labels,
                   incarnation, sdk, host, connected, server_id, address, authenticated_as,
                   connected_since, last_seen, epoch, revision, obeys, behind, source, problems
                   [{kind, name, message}], problem_count, overridden_by}], unreachable
                   [{server_id, error}]; ` + "`instances describe`" + ` has one of kind Instance
  flag eval        kind Evaluation, name, namespace, value, variant, reason, error_code, metadata,
                   revision, explanation {decided_by, detail, revision}
  validate         kind ValidationResult, files, definitions, errors, warnings,
                   items [{severity, file, line, resource, path, message}]
  watch            one WatchEvent per line: event, kind, name, namespace, revision, resource

` + "`export flagd`" + ` prints a flagd file instead. Times are RFC 3339 in UTC. Fields are added, never renamed.`
