// Package client is the SDK of Holdfast: it keeps the namespace of a control plane
// as one immutable view in the memory of a process, answers flags and modes from
// it, and enforces its policies on calls.
//
//	cp, err := client.Open(ctx, client.Config{
//		Servers: []string{"127.0.0.1:7400"}, Service: "checkout", CacheDir: dir,
//	})
//	if err != nil { … }               // the configuration is wrong; nothing else
//	defer cp.Close(ctx)
//
//	conn, err := grpc.NewClient(addr, cp.DialOptions("payments")...)
//	srv := grpc.NewServer(cp.ServerOptions()...)
//	newCheckout := cp.Bool("new-checkout", false)
//	if newCheckout.Get(client.Targeting(userID), client.String("plan", "gold")) { … }
//	hits, err := client.Do(ctx, cp, "search-index", func(ctx context.Context) (Hits, error) { … })
//
// No call waits for the control plane: without it an instance goes on with what it
// has, from a server, from its disk, or the defaults of its code, and Status says
// which. Everything may be called by any number of goroutines at the same time.
//
// HOLDFAST_DISABLE=1 in the environment lets a process behave as if there were
// nothing but its own code; a file of local overrides (Config.LocalOverrides or
// HOLDFAST_LOCAL_OVERRIDES) beats the control plane in part.
package client
