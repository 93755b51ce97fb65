package api

import (
	"context"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/holdfast-dev/holdfast/internal/pki"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// identity is who calls.
type identity struct {
	role pki.Role
	name string
	// verified is true when a certificate proved role and name. In plaintext
	// everybody is an unverified operator.
	verified bool
}

type identityKey struct{}

// identify reads the identity from the connection's certificate.
func identify(ctx context.Context) (identity, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return identity{}, Errorf(ReasonUnauthenticated, "the connection is unknown")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return identity{role: pki.RoleOperator}, nil
	}
	if len(info.State.PeerCertificates) == 0 {
		return identity{}, Errorf(ReasonUnauthenticated, "a client certificate is required")
	}
	id, err := pki.IdentityOf(info.State.PeerCertificates[0])
	if err != nil {
		return identity{}, newError(ReasonUnauthenticated, err, "the client certificate names no identity: %v", err)
	}
	return identity{role: id.Role, name: id.Name, verified: true}, nil
}

// withIdentity returns a context that identityOf reads.
func withIdentity(ctx context.Context, id identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// identityOf returns who calls. Without an identity, which the interceptors
// rule out, it returns one that may do nothing.
func identityOf(ctx context.Context) identity {
	id, _ := ctx.Value(identityKey{}).(identity)
	return id
}

// actor returns who a write is recorded for. What a caller says of itself counts
// only where no certificate tells.
func (id identity) actor(claimed string) *holdfastv1.Actor {
	if !id.verified {
		return &holdfastv1.Actor{Name: claimed}
	}
	name := id.name
	if id.role != pki.RoleOperator {
		// A server and an operator may have the same name and are not the same.
		name = string(id.role) + "/" + name
	}
	return &holdfastv1.Actor{Name: name, Verified: true}
}
