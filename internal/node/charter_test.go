package node

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/api"
	"github.com/holdfast-dev/holdfast/internal/consensus"
	"github.com/holdfast-dev/holdfast/internal/trust"
	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	stepAdd    = holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_ADD
	stepUse    = holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_USE
	stepRemove = holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_REMOVE
)

// gossipKeyFile writes a key for the servers' pool and returns the flag that uses it.
func gossipKeyFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gossip.key")
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	if err := os.WriteFile(path, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return "--gossip-key-file=" + path
}

// encryptedSites makes sites whose pool has a key.
func encryptedSites(t *testing.T, n, expect int) []*site {
	t.Helper()
	sites, key := newSites(t, n, expect), gossipKeyFile(t)
	for _, s := range sites {
		s.args = append(s.args, key)
	}
	return sites
}

// running leaves out the sites that are stopped.
func running(sites []*site) []*site {
	return slices.DeleteFunc(slices.Clone(sites), func(s *site) bool { return s.Node == nil })
}

// agreed tells whether all servers hold one charter, in which so many sign.
func agreed(sites []*site, signers int) func() bool {
	return func() bool {
		up := running(sites)
		for _, s := range up {
			set := s.charter.Signers()
			if len(set.Servers()) != signers || !bytes.Equal(s.charter.Save(), up[0].charter.Save()) || !set.Has(s.key.ID()) {
				return false
			}
		}
		return true
	}
}

// rotate takes a step at whoever leads and returns the keys.
func rotate(t *testing.T, sites []*site, step holdfastv1.GossipKeyStep, id string) []*holdfastv1.GossipKey {
	t.Helper()
	for {
		keys, err := leaderOf(t, sites).pools.RotateKey(t.Context(), &holdfastv1.RotateGossipKeyRequest{Namespace: "default", Step: step, Id: id})
		if errors.As(err, new(*consensus.NotLeaderError)) {
			continue // another one leads now
		}
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
}

// keyIDs returns the ids of the keys of the default namespace, the primary first.
func keyIDs(s *site) (ids []string) {
	for _, k := range s.pools.Keys("default") {
		ids = append(ids, k.GetId())
	}
	return ids
}

func sameKeys(sites []*site, want ...string) func() bool {
	return func() bool {
		return !slices.ContainsFunc(running(sites), func(s *site) bool { return !slices.Equal(keyIDs(s), want) })
	}
}

// What servers agree on survives changes of the leader, restarts and servers that were
// away; a leader without quorum changes nothing.
func TestCharterIsAgreed(t *testing.T) {
	t.Parallel()
	sites := encryptedSites(t, 3, 3)
	startAll(t, sites)
	until(t, 30*time.Second, "cluster", formed(sites, 3))
	until(t, 20*time.Second, "three sign", agreed(sites, 3))
	set := sites[0].charter.Signers()
	first := keyIDs(sites[0])
	if len(first) != 1 {
		t.Fatalf("the first keys are %v", first)
	}

	// A server that is away while the leader changes and keys are rotated.
	leader := leaderOf(t, sites)
	away := sites[(slices.Index(sites, leader)+1)%3]
	away.stop(t)
	second := rotate(t, sites, stepAdd, "")[1].GetId()
	third := sites[(slices.Index(sites, leader)+2)%3]
	if err := leader.raft.Transfer(t.Context(), third.ID()); err != nil {
		t.Logf("leadership not handed over: %v", err)
	}
	until(t, 20*time.Second, "the key is known", sameKeys(sites, first[0], second))
	rotate(t, sites, stepUse, second)
	if _, err := leaderOf(t, sites).pools.RotateKey(t.Context(), &holdfastv1.RotateGossipKeyRequest{Namespace: "default", Step: stepRemove, Id: second}); !hasReason(err, api.ReasonGossipKeyRefused) {
		t.Errorf("the key that encrypts is removed: %v", err)
	}
	rotate(t, sites, stepRemove, first[0])
	until(t, 20*time.Second, "the old key is gone", sameKeys(sites, second))
	away.start(t)
	until(t, 30*time.Second, "the one who was away catches up", sameKeys(sites, second))
	until(t, 20*time.Second, "they agree", agreed(sites, 3))
	if got := sites[0].charter.Signers(); got.Version() != set.Version() {
		t.Errorf("the set of signers has changed without need: version %x after %x", got.Version(), set.Version())
	}

	// All start again.
	for _, s := range sites {
		s.stop(t)
	}
	startAll(t, sites)
	until(t, 30*time.Second, "cluster again", formed(sites, 3))
	until(t, 20*time.Second, "they agree as before", agreed(sites, 3))
	if !sameKeys(sites, second)() || sites[0].charter.Signers().Version() != set.Version() {
		t.Fatal("the charter has changed by a restart")
	}

	// A follower changes nothing, and neither does a leader without the others.
	leader = leaderOf(t, sites)
	follower := sites[(slices.Index(sites, leader)+1)%3]
	request := &holdfastv1.RotateGossipKeyRequest{Namespace: "default", Step: stepAdd}
	if _, err := follower.pools.RotateKey(t.Context(), request); !errors.As(err, new(*consensus.NotLeaderError)) {
		t.Errorf("a follower rotates: %v", err)
	}
	before := leader.charter.Save()
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := leader.pools.RotateKey(gone, request); err == nil {
		t.Error("a leader that nobody has confirmed rotates")
	}
	for _, s := range sites {
		if s != leader {
			s.stop(t)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := leader.pools.RotateKey(ctx, request); err == nil {
		t.Error("a leader without quorum rotates")
	}
	if !bytes.Equal(leader.charter.Save(), before) {
		t.Error("a leader without quorum has changed the charter")
	}
}

func hasReason(err error, reason string) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Reason == reason
}

// A server joins and another one is removed: who held the old set takes the new one
// from anybody, and what the removed server signs counts no more.
func TestSignersFollowTheMembers(t *testing.T) {
	t.Parallel()
	sites := newSites(t, 4, 3) // a plaintext pool signs as well
	startAll(t, sites[:3])
	until(t, 30*time.Second, "cluster", formed(sites[:3], 3))
	until(t, 20*time.Second, "three sign", agreed(sites[:3], 3))
	held := sites[0].charter.Signers() // by an instance that is cut off from now on

	sites[3].start(t)
	until(t, 30*time.Second, "four voters", formed(sites, 4))
	until(t, 20*time.Second, "four sign", agreed(sites, 4))
	leader := leaderOf(t, sites)
	removed := sites[(slices.Index(sites[:3], leader)+1)%3]
	key := removed.key
	signed, err := removed.pools.SignHead("default", removed.View().Epoch(), 1, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := held.Head("default", signed); err != nil {
		t.Fatal(err)
	}
	err = leader.ChangeMembership(t.Context(), &peerv1.ChangeMembershipRequest{Change: &peerv1.ChangeMembershipRequest_Remove{
		Remove: &peerv1.RemoveServer{Id: removed.ID()},
	}})
	if err != nil {
		t.Fatal(err)
	}
	removed.stop(t)
	until(t, 20*time.Second, "three sign", agreed(sites, 3))

	now, err := held.Accept(leader.charter.Signers().Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := now.Head("default", signed); now.Has(key.ID()) || !errors.Is(err, trust.ErrUnknownSigner) {
		t.Errorf("the head of a removed server: %v", err)
	}
	newest, err := sites[3].pools.SignHead("default", sites[3].View().Epoch(), 1, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := now.Head("default", newest); err != nil {
		t.Errorf("the head of the new server: %v", err)
	}
	if len(keyIDs(leader)) != 0 {
		t.Error("a plaintext pool has keys")
	}
	// Who leads may change meanwhile.
	until(t, 20*time.Second, "a plaintext pool gets no key", func() bool {
		_, err := leaderOf(t, sites).pools.RotateKey(t.Context(), &holdfastv1.RotateGossipKeyRequest{Namespace: "default", Step: stepAdd})
		if err == nil {
			t.Fatal("a plaintext pool gets a key")
		}
		return hasReason(err, api.ReasonGossipKeyRefused)
	})
}

// A server without quorum has nothing fresh to vouch for.
func TestTimestamps(t *testing.T) {
	t.Parallel()
	sites := newSites(t, 3, 3)
	for _, s := range sites {
		s.setup = func(n *Node) { n.tickEvery = 200 * time.Millisecond }
	}
	startAll(t, sites)
	until(t, 30*time.Second, "cluster", formed(sites, 3))
	until(t, 20*time.Second, "three sign", agreed(sites, 3))
	revision := put(t, sites[0].APIAddr(), "first", 0)
	at := func(s *site) trust.Timestamp {
		signed := s.pools.Timestamp()
		if signed == nil {
			return trust.Timestamp{}
		}
		if again := s.pools.Timestamp(); again != signed && bytes.Equal(again.GetHead(), signed.GetHead()) {
			t.Error("signed twice")
		}
		read, err := s.charter.Signers().Timestamp(signed)
		if err != nil {
			t.Error(err)
		}
		return read
	}
	for _, s := range sites {
		until(t, 10*time.Second, "a timestamp of the write", func() bool { return at(s).Revision == revision })
		first := at(s).StateTime
		until(t, 10*time.Second, "a newer one", func() bool { return at(s).StateTime > first })
	}
	leader := leaderOf(t, sites)
	for _, s := range sites {
		if s != leader {
			s.stop(t)
		}
	}
	until(t, 10*time.Second, "the leader has noticed", func() bool { return leader.raft.Status().Role != consensus.Leader })
	last := at(leader)
	for range 5 {
		<-time.After(leader.tickEvery)
		if at(leader) != last {
			t.Fatal("a server without quorum vouches for the present")
		}
	}
}

// The files are for this user alone, and no secret is in the log.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	s := encryptedSites(t, 1, 1)[0]
	s.args = slices.DeleteFunc(s.args, func(arg string) bool { return strings.HasPrefix(arg, "--join") })
	s.setup = func(n *Node) {
		n.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	s.start(t)
	until(t, 20*time.Second, "it signs", agreed([]*site{s}, 1))
	id := rotate(t, []*site{s}, stepAdd, "")[1].GetId()
	rotate(t, []*site{s}, stepUse, id)
	_, release, err := s.pools.Pool("default")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	secrets := [][]byte{s.key.Seed(), bytes.Repeat([]byte{7}, 32)}
	for _, k := range s.charter.PoolKeys("default") {
		secrets = append(secrets, k.Value())
	}
	_, metrics := get(t, s.HTTPAddr(), "/metrics")
	_, config := get(t, s.HTTPAddr(), "/debug/vars")
	dir := s.dir
	for _, name := range []string{fileSigningKey, fileCharter} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	s.stop(t)
	shown := log.String() + metrics + config
	if !strings.Contains(shown, id) {
		t.Error("the log does not tell of the rotation")
	}
	err = filepath.WalkDir(filepath.Join(dir, dirRaft), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		shown += string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, secret := range secrets {
		for _, form := range []string{string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret)} {
			if strings.Contains(shown, form) {
				t.Errorf("secret %d shows", i)
			}
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Files that others may have read, or that are damaged, are not used.
func TestFilesOfKeysAreChecked(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		file    string
		content []byte
		mode    fs.FileMode
		want    string
	}{
		"a readable key":     {fileSigningKey, make([]byte, 32), 0o644, "chmod 600"},
		"a damaged key":      {fileSigningKey, make([]byte, 31), 0o600, "delete it"},
		"a readable charter": {fileCharter, nil, 0o640, "chmod 600"},
		"a damaged charter":  {fileCharter, []byte("garbage"), 0o600, "delete it"},
		"a huge charter":     {fileCharter, make([]byte, maxPrivateBytes+1), 0o600, "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSites(t, 1, 1)[0]
			if err := os.MkdirAll(s.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(s.dir, tc.file)
			if err := os.WriteFile(path, tc.content, tc.mode); err != nil {
				t.Fatal(err)
			}
			settings, err := Load(s.args, nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			err = New(settings.Config, slog.New(slog.DiscardHandler)).Run(ctx)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v", err)
			}
		})
	}
}
