// The operator's command line of Holdfast.
package main

import (
	"os"

	"github.com/holdfast-dev/holdfast/internal/cli"
)

func main() {
	os.Exit(cli.Run(os.Args[1:], cli.OS()))
}
