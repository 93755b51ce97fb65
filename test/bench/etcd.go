package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/holdfast-dev/holdfast/test/cluster"
)

// etcdMemberCommand makes this program be one etcd member instead.
const etcdMemberCommand = "etcd-member"

// etcd is a cluster of three members with etcd's defaults, each a process.
type etcd struct {
	dir    string
	leases []*cluster.PortLease
	procs  []*cluster.Process
	admin  []*clientv3.Client
}

func startEtcd(ctx context.Context, c config) (*etcd, error) {
	dir, err := os.MkdirTemp(c.dir, "etcd-")
	if err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	e := &etcd{dir: dir, procs: make([]*cluster.Process, 3)}
	for range e.procs {
		lease, err := cluster.LeasePorts()
		if err != nil {
			e.Close()
			return nil, err
		}
		e.leases = append(e.leases, lease)
	}
	for i := range e.procs {
		if err := e.Restart(i); err != nil {
			e.Close()
			return nil, err
		}
		admin, err := e.connect(i)
		if err != nil {
			e.Close()
			return nil, err
		}
		e.admin = append(e.admin, admin)
	}
	for i := range e.procs {
		if err := e.Ready(ctx, i); err != nil {
			e.Close()
			return nil, err
		}
	}
	return e, nil
}

// dialOptions are the same back-off as the Holdfast clients have.
func dialOptions() []grpc.DialOption {
	retry := backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 100 * time.Millisecond}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: time.Second}),
	}
}

func (e *etcd) Name() string { return "etcd" }

func (e *etcd) addr(i int) string { return fmt.Sprintf("127.0.0.1:%d", e.leases[i].Base) }

func (e *etcd) Restart(i int) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find myself: %w", err)
	}
	members := make([]string, 0, len(e.leases))
	for m, lease := range e.leases {
		members = append(members, fmt.Sprintf("m%d=http://127.0.0.1:%d", m, lease.Base+1))
	}
	args := []string{
		etcdMemberCommand, fmt.Sprintf("m%d", i), filepath.Join(e.dir, fmt.Sprintf("m%d", i)),
		"http://" + e.addr(i), fmt.Sprintf("http://127.0.0.1:%d", e.leases[i].Base+1), strings.Join(members, ","),
	}
	e.procs[i], err = cluster.StartProcess(self, args, nil, filepath.Join(e.dir, fmt.Sprintf("m%d.log", i)))
	return err
}

func (e *etcd) Kill(i int) error { e.procs[i].Kill(); return nil }

func (e *etcd) Close() {
	for i, p := range e.procs {
		if p != nil {
			p.Kill()
		}
		if i < len(e.admin) {
			_ = e.admin[i].Close()
		}
		if i < len(e.leases) {
			e.leases[i].Release()
		}
	}
}

func (e *etcd) Leader(ctx context.Context) (int, error) {
	for i, p := range e.procs {
		if !p.Alive() {
			continue
		}
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		st, err := e.admin[i].Status(short, e.addr(i))
		cancel()
		if err == nil && st.Leader != 0 && st.Leader == st.Header.MemberId {
			return i, nil
		}
	}
	return 0, errors.New("no etcd member leads")
}

// Ready waits until a linearizable read through member i succeeds.
func (e *etcd) Ready(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return cluster.Poll(ctx, func() error {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := e.admin[i].Get(short, "ready")
		return err
	})
}

func (e *etcd) Open(i int) (link, error) {
	c, err := e.connect(i)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(e.addr(i), dialOptions()...)
	if err != nil {
		return nil, fmt.Errorf("connect to etcd: %w", err)
	}
	return &etcdClient{client: c, conn: conn, kv: etcdserverpb.NewKVClient(conn)}, nil
}

func (e *etcd) connect(i int) (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{e.addr(i)}, DialOptions: dialOptions(), Logger: zap.NewNop(),
	})
	if err != nil {
		return nil, fmt.Errorf("connect to etcd: %w", err)
	}
	return c, nil
}

// etcdClient puts through the bare generated stub, as the Holdfast client does,
// so that neither side pays for a client library.
type etcdClient struct {
	client *clientv3.Client // watches
	conn   *grpc.ClientConn // puts
	kv     etcdserverpb.KVClient
}

func (c *etcdClient) Close() error { return errors.Join(c.client.Close(), c.conn.Close()) }

func (c *etcdClient) Put(ctx context.Context, key, text string) error {
	_, err := c.kv.Put(ctx, &etcdserverpb.PutRequest{Key: []byte(key), Value: []byte(pad(text, valueBytes))})
	return err
}

func (c *etcdClient) Watch(ctx context.Context, ready func(), seen func(key, text string)) error {
	for resp := range c.client.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithCreatedNotify()) {
		if err := resp.Err(); err != nil {
			return err
		}
		if resp.Created {
			ready()
		}
		for _, ev := range resp.Events {
			seen(string(ev.Kv.Key), unpad(string(ev.Kv.Value)))
		}
	}
	return nil
}

// runEtcdMember is the process of one member: name, directory, client URL, peer
// URL, initial cluster. Everything else is etcd's default, fsync included.
func runEtcdMember(args []string) {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.InitialCluster = args[0], args[1], args[4]
	clientURL, _ := url.Parse(args[2])
	peerURL, _ := url.Parse(args[3])
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*clientURL}, []url.URL{*clientURL}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*peerURL}, []url.URL{*peerURL}
	cfg.LogLevel = "error"
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		os.Exit(1)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	select {
	case <-stop:
		server.Close()
	case err := <-server.Err():
		fmt.Fprintln(os.Stderr, "etcd:", err)
		os.Exit(1)
	}
}
