// Package dial connects to the instances of a service.
package dial

import (
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// Service returns a connection that spreads calls over the instances of a service.
// It connects with the first call; an instance that is gone is tried again within
// seconds.
func Service(name string, addrs []string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	known := manual.NewBuilderWithScheme("shop")
	var state resolver.State
	for _, addr := range addrs {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: addr})
	}
	known.InitialState(state)
	pause := backoff.DefaultConfig
	pause.BaseDelay, pause.MaxDelay = 200*time.Millisecond, 2*time.Second
	conn, err := grpc.NewClient("shop:///"+name, append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithResolvers(known),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: pause, MinConnectTimeout: time.Second}),
	}, options...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", name, err)
	}
	return conn, nil
}
