// Package command is the command line of the server: controlplane with its
// subcommands.
package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/internal/node"
	"github.com/holdfast-dev/holdfast/internal/version"
)

// Exit codes of the program.
const (
	ExitOK = 0
	// ExitFailed: something did not work; the message says what.
	ExitFailed = 1
	// ExitUsage: the command line or the configuration is wrong.
	ExitUsage = 2
	// ExitFatal: the server cannot go on with what is on its disk, or was removed
	// from its cluster. Starting it again without a look does not help.
	ExitFatal = 70
)

// bannerWait bounds how long the words for a throw-away server wait until it
// answers.
const bannerWait = 5 * time.Second

const usage = `controlplane is a server of Holdfast.

Usage:
  controlplane [FLAGS]                     serve: a durable single server without any flag
  controlplane --dev                       serve: a throw-away server on loopback
  controlplane --expect 3 --join A,B,C     serve: one of three; the same line for first start, restart and scale-up
  controlplane config print [FLAGS]        show every value and where it comes from
  controlplane config example              write a configuration file with every setting
  controlplane recover --data-dir DIR --peers ID=ADDR[,ID=ADDR]
                                           rewrite the membership of a stopped server after a lost quorum
  controlplane version

A setting is a flag (--raft-addr), a key of the file (raft-addr) and a variable (HOLDFAST_RAFT_ADDR);
flags beat variables, which beat the file.

Flags:
`

// Main runs the program until ctx ends and returns its exit code.
func Main(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	err := run(ctx, args, environ, stdout, stderr)
	var config *node.ConfigError
	var fatal *node.FatalError
	switch {
	case err == nil:
		return ExitOK
	case errors.Is(err, node.ErrHelp):
		_, _ = fmt.Fprint(stdout, usage, node.Usage())
		return ExitOK
	case errors.As(err, &config), errors.Is(err, errUsage):
		_, _ = fmt.Fprintf(stderr, "controlplane: %v\nRun controlplane --help for every setting.\n", err)
		return ExitUsage
	case errors.As(err, &fatal), errors.Is(err, node.ErrRemoved), errors.Is(err, node.ErrDamaged):
		_, _ = fmt.Fprintf(stderr, "controlplane: %v\n", err)
		return ExitFatal
	default:
		_, _ = fmt.Fprintf(stderr, "controlplane: %v\n", err)
		return ExitFailed
	}
}

var errUsage = errors.New("wrong usage")

func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return serve(ctx, args, environ, stdout, stderr)
	}
	switch args[0] {
	case "serve":
		return serve(ctx, args[1:], environ, stdout, stderr)
	case "config":
		return config(args[1:], environ, stdout)
	case "recover":
		return recoverCluster(ctx, args[1:], environ, stdout, stderr)
	case "version":
		_, _ = fmt.Fprintln(stdout, "controlplane", version.Version)
		return nil
	case "help":
		return node.ErrHelp
	default:
		return fmt.Errorf("%w: unknown command %q; the commands are serve, config, recover and version", errUsage, args[0])
	}
}

// serve runs a server until ctx ends.
func serve(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	settings, err := node.Load(args, environ)
	if err != nil {
		return err //nolint:wrapcheck // it lists the problems
	}
	config := settings.Config
	server := node.New(config, logger(config, stderr))
	if config.Dev {
		server.OnStarted(func() {
			ctx, cancel := context.WithTimeout(ctx, bannerWait)
			defer cancel()
			_ = server.WaitServing(ctx) // the log says why it does not serve yet
			banner(stdout, server)
		})
	}
	return server.Run(ctx) //nolint:wrapcheck // it says what it is about
}

func banner(w io.Writer, server *node.Node) {
	_, _ = fmt.Fprintf(w, `
  Holdfast %s, a throw-away server: its data is gone when it stops.

    API      %s
    Health   http://%s/readyz?verbose
    Metrics  http://%s/metrics
    Flags    %s (OFREP and flagd's protocols)

  Try in another terminal:

    export HOLDFAST_ADDR=%s
    go run ./cmd/holdfast cluster status

  Services with a cache of an earlier throw-away server refuse this one (another
  cluster): remove their cache directory.

`, version.Version, server.APIAddr(), server.HTTPAddr(), server.HTTPAddr(), cmp.Or(server.FlagsAddr(), "off"), server.APIAddr())
}

func config(args, environ []string, stdout io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: config print or config example", errUsage)
	}
	switch args[0] {
	case "print":
		settings, err := node.Load(args[1:], environ)
		if err != nil {
			return err //nolint:wrapcheck // it lists the problems
		}
		return settings.Print(stdout) //nolint:wrapcheck // it says what it is about
	case "example":
		_, err := io.WriteString(stdout, node.Example())
		return err //nolint:wrapcheck // the terminal is gone
	case "-h", "--help":
		return node.ErrHelp
	default:
		return fmt.Errorf("%w: unknown command config %q; there are print and example", errUsage, args[0])
	}
}

// recoverCluster takes --peers beside the settings of the server.
func recoverCluster(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	var rest []string
	list := ""
	for i := 0; i < len(args); i++ {
		switch value, inline := strings.CutPrefix(args[i], "--peers="); {
		case inline:
			list = value
		case args[i] == "--peers" && i+1 < len(args):
			i++
			list = args[i]
		default:
			rest = append(rest, args[i])
		}
	}
	settings, err := node.Load(rest, environ)
	if err != nil {
		return err //nolint:wrapcheck // it lists the problems
	}
	if list == "" {
		return fmt.Errorf("%w: recover needs --peers ID=RAFT-ADDR with every server that survives; "+
			"each server's id is in the file node-id of its data directory", errUsage)
	}
	peers, err := node.ParsePeers(list)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if err := node.Recover(ctx, settings.Config, peers, logger(settings.Config, stderr)); err != nil {
		return err //nolint:wrapcheck // it says what it is about
	}
	_, _ = fmt.Fprintf(stdout, "Recovered %s with %d server(s). Do the same, with the same peers, on every other survivor, then start them.\n"+
		"The first leader raises the epoch before anybody is served.\n", settings.Config.DataDir, len(peers))
	return nil
}

func logger(c node.Config, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // one of four words
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
