package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/holdfast-dev/holdfast/internal/pki"
	evaluationv1 "github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v1"
	evaluationv2 "github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v2"
	syncv1 "github.com/holdfast-dev/holdfast/proto/flagd/sync/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// allowed says by hand who may call what: i instance, o operator, s server, and
// p whoever comes in plaintext.
func allowed() map[string]string {
	return map[string]string{
		"/holdfast.v1.StateService/Apply":                                "osp",
		"/holdfast.v1.StateService/Get":                                  "iosp",
		"/holdfast.v1.StateService/List":                                 "iosp",
		"/holdfast.v1.StateService/Watch":                                "iosp",
		"/holdfast.v1.StateService/ListAudit":                            "iosp",
		"/holdfast.v1.StateService/AwaitRevision":                        "iosp",
		"/holdfast.v1.SessionService/Connect":                            "iosp",
		"/holdfast.v1.InstanceService/ListInstances":                     "iosp",
		"/holdfast.v1.InstanceService/AwaitInstances":                    "iosp",
		"/holdfast.v1.FleetService/GetFleet":                             "iosp",
		"/holdfast.v1.FleetService/WatchFleet":                           "iosp",
		"/holdfast.v1.FleetService/ListGossipKeys":                       "iosp",
		"/holdfast.v1.FleetService/RotateGossipKey":                      "osp",
		"/holdfast.v1.ClusterService/GetStatus":                          "iosp",
		"/holdfast.v1.ClusterService/ListMembers":                        "iosp",
		"/holdfast.v1.ClusterService/JoinMember":                         "osp",
		"/holdfast.v1.ClusterService/PromoteMember":                      "osp",
		"/holdfast.v1.ClusterService/RemoveMember":                       "osp",
		"/holdfast.v1.ClusterService/TransferLeadership":                 "osp",
		"/holdfast.v1.ClusterService/Backup":                             "osp",
		"/holdfast.v1.ClusterService/Restore":                            "osp",
		"/holdfast.peer.v1.PeerService/Propose":                          "sp",
		"/holdfast.peer.v1.PeerService/ReadIndex":                        "sp",
		"/holdfast.peer.v1.PeerService/AwaitRevision":                    "sp",
		"/holdfast.peer.v1.PeerService/ChangeMembership":                 "sp",
		"/holdfast.peer.v1.PeerService/PromiseBootstrap":                 "sp",
		"/holdfast.peer.v1.PeerService/ListInstances":                    "sp",
		"/holdfast.peer.v1.PeerService/AwaitInstances":                   "sp",
		"/holdfast.peer.v1.PeerService/RotateGossipKey":                  "sp",
		"/flagd.sync.v1.FlagSyncService/SyncFlags":                       "iosp",
		"/flagd.sync.v1.FlagSyncService/FetchAllFlags":                   "iosp",
		"/flagd.sync.v1.FlagSyncService/GetMetadata":                     "iosp",
		"/flagd.evaluation.v1.Service/ResolveAll":                        "iosp",
		"/flagd.evaluation.v1.Service/ResolveBoolean":                    "iosp",
		"/flagd.evaluation.v1.Service/ResolveString":                     "iosp",
		"/flagd.evaluation.v1.Service/ResolveFloat":                      "iosp",
		"/flagd.evaluation.v1.Service/ResolveInt":                        "iosp",
		"/flagd.evaluation.v1.Service/ResolveObject":                     "iosp",
		"/flagd.evaluation.v1.Service/EventStream":                       "iosp",
		"/flagd.evaluation.v2.Service/ResolveBoolean":                    "iosp",
		"/flagd.evaluation.v2.Service/ResolveString":                     "iosp",
		"/flagd.evaluation.v2.Service/ResolveFloat":                      "iosp",
		"/flagd.evaluation.v2.Service/ResolveInt":                        "iosp",
		"/flagd.evaluation.v2.Service/ResolveObject":                     "iosp",
		"/flagd.evaluation.v2.Service/EventStream":                       "iosp",
		"/grpc.health.v1.Health/Check":                                   "iosp",
		"/grpc.health.v1.Health/List":                                    "iosp",
		"/grpc.health.v1.Health/Watch":                                   "iosp",
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      "iosp",
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": "iosp",
	}
}

// methods returns every method of every registered service.
func methods(s *grpc.Server) []string {
	var list []string
	for service, info := range s.GetServiceInfo() {
		for _, m := range info.Methods {
			list = append(list, "/"+service+"/"+m.Name)
		}
	}
	slices.Sort(list)
	return list
}

func TestEveryMethodHasARule(t *testing.T) {
	n := single(t)
	// Package facade adds its services to the server before it serves.
	flagd := grpc.NewServer()
	syncv1.RegisterFlagSyncServiceServer(flagd, syncv1.UnimplementedFlagSyncServiceServer{})
	evaluationv1.RegisterServiceServer(flagd, evaluationv1.UnimplementedServiceServer{})
	evaluationv2.RegisterServiceServer(flagd, evaluationv2.UnimplementedServiceServer{})
	served := slices.Sorted(slices.Values(append(methods(n.GRPC()), methods(flagd)...)))
	if want := slices.Sorted(maps.Keys(allowed())); !slices.Equal(served, want) {
		t.Errorf("served are %q, the test knows %q", served, want)
	}
	if have := slices.Sorted(maps.Keys(rules)); !slices.Equal(served, have) {
		t.Errorf("served are %q, rules are for %q", served, have)
	}
	for method, who := range allowed() {
		for letter, id := range map[string]identity{
			"i": {role: pki.RoleInstance, verified: true}, "o": {role: pki.RoleOperator, verified: true},
			"s": {role: pki.RoleServer, verified: true}, "p": {role: pki.RoleOperator},
		} {
			if got := rules[method].access.allows(id); got != strings.Contains(who, letter) {
				t.Errorf("%s for %+v: %v", method, id, got)
			}
		}
		if rules[method].access.allows(identity{}) {
			t.Errorf("%s is open to nobody known", method)
		}
	}
	if (rule{}).access.allows(identity{role: pki.RoleServer, verified: true}) {
		t.Error("a method without a rule is open")
	}
}

// certificates makes certificates of every role, with the server's configuration
// and those of its clients.
func certificates(t *testing.T) (server *tls.Config, clients map[pki.Role]*tls.Config) {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ca, err := pki.CreateCA(pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.Save(file("ca.crt"), file("ca.key")); err != nil {
		t.Fatal(err)
	}
	clients = make(map[pki.Role]*tls.Config)
	for _, role := range pki.Roles() {
		options := pki.Options{Role: role, Name: "alice"}
		if role == pki.RoleServer {
			options.Hosts = []string{"127.0.0.1"}
		}
		pair, err := pki.CreateCert(ca, options)
		if err != nil {
			t.Fatal(err)
		}
		if err := pair.Save(file(string(role)+".crt"), file(string(role)+".key")); err != nil {
			t.Fatal(err)
		}
		if clients[role], err = pki.ClientConfig(file("ca.crt"), file(string(role)+".crt"), file(string(role)+".key"), pki.RoleServer); err != nil {
			t.Fatal(err)
		}
	}
	if server, err = pki.ServerConfig(file("ca.crt"), file("server.crt"), file("server.key"), pki.Roles()...); err != nil {
		t.Fatal(err)
	}
	return server, clients
}

// call calls any method with an empty request and returns its failure, if it has
// one at once.
func call(ctx context.Context, t *testing.T, conn *grpc.ClientConn, method string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	// A server that has refused already has ended the stream; Recv tells why.
	_ = stream.SendMsg(&emptypb.Empty{})
	_ = stream.CloseSend()
	return stream.RecvMsg(&emptypb.Empty{})
}

// TestRolesOverTLS calls every method with a certificate of every role.
func TestRolesOverTLS(t *testing.T) {
	server, clients := certificates(t)
	n := single(t, func(c *Config) { c.TLS = server })
	n.replica.cluster.setOnPropose(nil)
	for role, letter := range map[pki.Role]string{pki.RoleInstance: "i", pki.RoleOperator: "o", pki.RoleServer: "s"} {
		conn := dial(t, n.addr, grpc.WithTransportCredentials(credentials.NewTLS(clients[role])))
		for method, who := range allowed() {
			refused := reasonOf(call(t.Context(), t, conn, method)) == ReasonPermissionDenied
			if refused == strings.Contains(who, letter) {
				t.Errorf("%s as %s: refused is %v", method, role, refused)
			}
		}
	}
}

func TestActorIsTheCertificate(t *testing.T) {
	server, clients := certificates(t)
	n := single(t, func(c *Config) { c.TLS = server })
	for role, want := range map[pki.Role]string{pki.RoleOperator: "alice", pki.RoleServer: "server/alice"} {
		conn := dial(t, n.addr, grpc.WithTransportCredentials(credentials.NewTLS(clients[role])))
		req := transactionOf(flag("by-"+string(role), `1`))
		req.ClaimedActor = "mallory"
		if _, err := holdfastv1.NewStateServiceClient(conn).Apply(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		r := n.replica.View().Namespace("default").Get(placedKeyOf("by-" + string(role)).Key)
		if r.Actor != want || !r.ActorVerified {
			t.Errorf("as %s the actor is %q, verified %v", role, r.Actor, r.ActorVerified)
		}
	}
}

func TestUnauthenticated(t *testing.T) {
	server, clients := certificates(t)
	open := &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		base := server
		if server.GetConfigForClient != nil {
			var err error
			if base, err = server.GetConfigForClient(h); err != nil {
				return nil, err
			}
		}
		c := base.Clone()
		c.ClientAuth, c.VerifyConnection, c.VerifyPeerCertificate = tls.RequestClientCert, nil, nil
		c.NextProtos = []string{"h2"}
		return c, nil
	}}
	n := single(t, func(c *Config) { c.TLS = open })
	anonymous := clients[pki.RoleOperator].Clone()
	anonymous.Certificates = nil
	anonymous.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	conn := dial(t, n.addr, grpc.WithTransportCredentials(credentials.NewTLS(anonymous)))
	_, err := holdfastv1.NewStateServiceClient(conn).Get(t.Context(), get("a", nil))
	expect(t, err, ReasonUnauthenticated)
	_, err = grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	expect(t, err, ReasonUnauthenticated)
	if _, err := pki.IdentityOf(&x509.Certificate{}); err == nil {
		t.Error("a certificate without an identity has one")
	}
}

// TestForwardingOverTLS has a follower forward with its own certificate what an
// operator asked for with hers.
func TestForwardingOverTLS(t *testing.T) {
	server, clients := certificates(t)
	secure := func(c *Config) {
		c.TLS = server
		c.DialOptions = []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(clients[pki.RoleServer]))}
	}
	c := newFakeCluster(t, "n1", "n2")
	serve(t, c.replicas[0], secure)
	follower := serve(t, c.replicas[1], secure)
	conn := dial(t, follower.addr, grpc.WithTransportCredentials(credentials.NewTLS(clients[pki.RoleOperator])))
	if _, err := holdfastv1.NewStateServiceClient(conn).Apply(t.Context(), transactionOf(flag("a", `1`))); err != nil {
		t.Fatal(err)
	}
	if r := c.replicas[0].View().Namespace("default").Get(placedKeyOf("a").Key); r.Actor != "alice" || !r.ActorVerified {
		t.Errorf("the actor is %q, verified %v", r.Actor, r.ActorVerified)
	}
}
