// Instance is a process with the SDK of the version that it is compiled with. It
// prints each view that it obeys, with the level of the mode "storefront", until it
// is killed.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/holdfast-dev/holdfast/pkg/client"
)

func main() {
	in, err := client.Open(context.Background(), client.Config{
		Servers: strings.Split(os.Args[1], ","), Service: "checkout", InstanceID: "previous", CacheDir: os.Args[2],
	})
	if err != nil {
		panic(err)
	}
	mode := in.Mode("storefront")
	tell := func() {
		s := in.Status()
		fmt.Printf("obeys revision=%d level=%s connected=%t problems=%d resyncs=%d\n", s.Revision, mode.Level().Name, s.Connected, len(s.Problems), s.Resyncs)
	}
	events := in.Events(context.Background())
	for tell(); ; tell() {
		if _, ok := <-events; !ok {
			return
		}
	}
}
