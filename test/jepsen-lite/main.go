// Command jepsen-lite runs real servers and real SDK processes under real faults,
// records what everybody saw, and lets rules that know nothing of the product judge it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/instance"
)

// Exit codes. Only passed is zero: what is unknown or invalid proves nothing.
const (
	exitPassed      = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotProven   = 3
	exitInterrupted = 130
)

// errUsage is a mistake of the caller.
var errUsage = errors.New("usage")

const usage = `jepsen-lite tests Holdfast with real processes and real faults.

  jepsen-lite run [-profile short|default|long] [-scenario NAME,…] [-seed N] [-seeds N] [-out DIR]
  jepsen-lite check DIR…   judges recorded runs again, and measures them
  jepsen-lite summary [-out DIR] DIR…
                           sums up runs, and sets of runs, that have been carried out before
  jepsen-lite seeded [-bug NAME,…] [-runs N] [-all] [-seed N] [-out DIR]
                           gives the programs a bug each time, and shows that it is found
  jepsen-lite list         lists scenarios, faults and rules

Exit codes: 0 everything passed; 1 a rule was violated; 2 usage; 3 something is unknown or
invalid, which never counts as passed, or nothing could be done; 130 interrupted. A run
whose faults this machine cannot do is skipped, and told apart.
`

func main() { os.Exit(start(os.Args[1:])) }

func start(args []string) int {
	if len(args) == 0 {
		_, _ = fmt.Fprint(os.Stderr, usage)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	exit, err := dispatch(ctx, args[0], args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitUsage
	case errors.Is(err, errUsage):
		_, _ = fmt.Fprintf(os.Stderr, "jepsen-lite: %v\n\n%s", err, usage)
		return exitUsage
	case err != nil && ctx.Err() != nil:
		_, _ = fmt.Fprintf(os.Stderr, "jepsen-lite: interrupted: %v\n", err)
		return exitInterrupted
	case err != nil:
		_, _ = fmt.Fprintf(os.Stderr, "jepsen-lite: %v\n", err)
		return max(exit, exitFailed)
	}
	return exit
}

func dispatch(ctx context.Context, command string, args []string) (int, error) {
	switch command {
	case "run":
		return runMany(ctx, args)
	case "check":
		return checkAgain(os.Stdout, args)
	case "summary":
		return sumUp(os.Stdout, args)
	case "list":
		return exitPassed, list(os.Stdout)
	case "seeded":
		return runSeeded(ctx, args)
	case "one": // a run, executed by run
		return runOne(ctx, args)
	case "instance": // a process with the SDK, started by a run
		if err := instance.Main(ctx, args, os.Stdin); err != nil {
			return exitFailed, err
		}
		return exitPassed, nil
	case "help", "-h", "-help", "--help":
		_, _ = io.WriteString(os.Stdout, usage)
		return exitPassed, nil
	}
	return exitUsage, fmt.Errorf("%w: there is no command %q", errUsage, command)
}
