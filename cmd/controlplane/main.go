// Controlplane is a server of Holdfast.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/holdfast-dev/holdfast/internal/node/command"
)

func main() {
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		stop() // in an orderly way
		<-signals
		os.Exit(command.ExitFailed) // now
	}()
	os.Exit(command.Main(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
