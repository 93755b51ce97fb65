package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// gossipKeyView is a key of a pool in JSON and YAML: never its value.
type gossipKeyView struct {
	ID string `json:"id"`
	// CreateTime is zero for a key that follows from the servers' gossip-key-file.
	CreateTime time.Time `json:"create_time,omitzero"`
	Primary    bool      `json:"primary"`
}

// gossipCommand is everything about the instances' pool.
func (a *app) gossipCommand() *cobra.Command {
	return a.group("gossip", "Keys of the pool in which instances gossip", "holdfast gossip keys list\nholdfast gossip keys rotate",
		a.group("keys", "Show and rotate the keys that encrypt the pool", "holdfast gossip keys list\nholdfast gossip keys rotate",
			a.gossipKeysList(),
			a.gossipKeysStep("add", "Make a new key, which all members can decrypt with from now on", holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_ADD),
			a.gossipKeysStep("use", "Let members encrypt with a key", holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_USE),
			a.gossipKeysStep("remove", "Forget a key that nobody encrypts with", holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_REMOVE),
			a.gossipKeysRotate()))
}

// gossipKeysList is `gossip keys list`.
func (a *app) gossipKeysList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the keys of the namespace's pool, not their values",
		Example: "holdfast gossip keys list", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.connect(); err != nil {
				return err
			}
			keys, err := a.gossipKeys(cmd.Context())
			if err != nil {
				return err
			}
			return a.tellGossipKeys(keys)
		},
	}
}

// gossipKeysStep is one step of a rotation. All but the first are about a key.
func (a *app) gossipKeysStep(use, short string, step holdfastv1.GossipKeyStep) *cobra.Command {
	adds := step == holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_ADD
	cmd := &cobra.Command{Use: use + " ID", Short: short, Example: "holdfast gossip keys " + use + " 3f9a2c01", Args: exactArgs("ID"), ValidArgsFunction: a.completeGossipKeys}
	if adds {
		cmd.Use, cmd.Example, cmd.Args, cmd.ValidArgsFunction = use, "holdfast gossip keys add", exactArgs(), nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.connect(); err != nil {
			return err
		}
		keys, err := a.gossipStep(cmd.Context(), step, strings.Join(args, ""))
		if err != nil {
			return err
		}
		return a.tellGossipKeys(keys)
	}
	return cmd
}

// gossipKeys asks for the keys.
func (a *app) gossipKeys(ctx context.Context) ([]gossipKeyView, error) {
	res, err := query(ctx, a.remote, &holdfastv1.ListGossipKeysRequest{Namespace: a.namespace()},
		func(c *grpc.ClientConn) func(context.Context, *holdfastv1.ListGossipKeysRequest, ...grpc.CallOption) (*holdfastv1.ListGossipKeysResponse, error) {
			return holdfastv1.NewFleetServiceClient(c).ListGossipKeys
		})
	if err != nil {
		return nil, a.rpcFailure("list the keys of the pool", err)
	}
	return gossipKeyViews(res.GetKeys()), nil
}

// gossipStep takes one step of a rotation. It is not repeated where a server may have
// taken it: a second "add" would make a second key.
func (a *app) gossipStep(ctx context.Context, step holdfastv1.GossipKeyStep, id string) ([]gossipKeyView, error) {
	res, err := once(ctx, a.remote, &holdfastv1.RotateGossipKeyRequest{Namespace: a.namespace(), Step: step, Id: id},
		func(c *grpc.ClientConn) func(context.Context, *holdfastv1.RotateGossipKeyRequest, ...grpc.CallOption) (*holdfastv1.RotateGossipKeyResponse, error) {
			return holdfastv1.NewFleetServiceClient(c).RotateGossipKey
		})
	if err != nil {
		return nil, a.rpcFailure("change the keys of the pool", err)
	}
	return gossipKeyViews(res.GetKeys()), nil
}

func gossipKeyViews(keys []*holdfastv1.GossipKey) []gossipKeyView {
	out := []gossipKeyView{}
	for _, k := range keys {
		v := gossipKeyView{ID: k.GetId(), Primary: k.GetPrimary()}
		if made := k.GetCreateTime(); made.GetSeconds() != 0 {
			v.CreateTime = made.AsTime()
		}
		out = append(out, v)
	}
	return out
}

// tellGossipKeys writes the keys.
func (a *app) tellGossipKeys(keys []gossipKeyView) error {
	if a.format != tableFormat {
		return a.emit(listView[gossipKeyView]{head: newHead("GossipKeyList"), Items: keys})
	}
	if len(keys) == 0 {
		a.notice("the pool%s has no keys: it is in plaintext, as that of the servers, which have no gossip-key-file", a.inNamespace())
		return nil
	}
	t := table{}
	t.row("KEY", "MADE", "MEMBERS")
	for _, k := range keys {
		use := "decrypt with it"
		if k.Primary {
			use = "encrypt and decrypt with it"
		}
		made := "from gossip-key-file"
		if !k.CreateTime.IsZero() {
			made = human(a.now().Sub(k.CreateTime)) + " ago"
		}
		t.row(k.ID, made, use)
	}
	t.paint = func(row, _ int, text string) string {
		if row == 0 {
			return a.out.bold(text)
		}
		return text
	}
	return t.write(a.io.Out)
}

// gossipKeysRotate is `gossip keys rotate`.
func (a *app) gossipKeysRotate() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "rotate", Short: "Replace the key of the pool: add, use, remove, with time between for all to follow",
		Long: `Replace the key that encrypts the pool: make a new one, let members encrypt with it once all can
decrypt with it, and forget the others. Members learn of each step over their sessions, so the time
between two steps is how long an instance may have been cut off from all servers and still follow.
Interrupted, it leaves the pool working: run it again, or take the steps one by one.`,
		Example: "holdfast gossip keys rotate\nholdfast gossip keys rotate --pause 24h",
		Args:    exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if wait < 0 {
				return usage("--pause %v: it cannot be negative", wait)
			}
			if err := a.connect(); err != nil {
				return err
			}
			return a.rotateGossipKeys(cmd.Context(), wait)
		},
	}
	cmd.Flags().DurationVar(&wait, "pause", 30*time.Second, "`time` between two steps")
	return cmd
}

func (a *app) rotateGossipKeys(ctx context.Context, wait time.Duration) error {
	before, err := a.gossipKeys(ctx)
	if err != nil {
		return err
	}
	keys, err := a.gossipStep(ctx, holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_ADD, "")
	if err != nil {
		return err
	}
	at := slices.IndexFunc(keys, func(k gossipKeyView) bool { return !slices.Contains(before, k) })
	if at < 0 {
		return fail(exitError, "the server added no key")
	}
	fresh := keys[at].ID
	a.notice("added key %s; all members can decrypt with it soon", fresh)
	steps := []func() error{func() error {
		_, err := a.gossipStep(ctx, holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_USE, fresh)
		return err
	}}
	for _, k := range keys {
		if k.ID != fresh {
			steps = append(steps, func() error {
				keys, err = a.gossipStep(ctx, holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_REMOVE, k.ID)
				return err
			})
		}
	}
	for i, step := range steps {
		if i < 2 { // old keys go together
			a.progress("waiting %s for all members to follow", humanLimit(wait))
			if !sleep(ctx, wait) {
				return fail(exitError, "interrupted; the pool works on with the keys that it has").hint("see `holdfast gossip keys list`, and go on with use and remove")
			}
		}
		if err := step(); err != nil {
			return err
		}
		if i == 0 {
			a.notice("members encrypt with key %s", fresh)
		}
	}
	a.notice("the old keys are forgotten")
	return a.tellGossipKeys(keys)
}

// completeGossipKeys completes the ids of keys.
func (a *app) completeGossipKeys(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	var out []string
	if len(args) == 0 && a.quickly(cmd) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		if keys, err := a.gossipKeys(ctx); err == nil {
			for _, k := range keys {
				if strings.HasPrefix(k.ID, typed) {
					out = append(out, k.ID)
				}
			}
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
