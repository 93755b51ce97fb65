package cli

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// headerView is a state in JSON and YAML.
type headerView struct {
	Lineage  string `json:"lineage"`
	Epoch    uint64 `json:"epoch"`
	Nonce    string `json:"nonce"`
	Revision uint64 `json:"revision"`
	ServerID string `json:"server_id"`
}

func headerViewOf(h *holdfastv1.Header) headerView {
	return headerView{
		Lineage: hex.EncodeToString(h.GetEpoch().GetLineage()), Epoch: h.GetEpoch().GetCounter(),
		Nonce: fmt.Sprintf("%016x", h.GetEpoch().GetNonce()), Revision: h.GetRevision(), ServerID: h.GetServerId(),
	}
}

// statusView is a server's status in JSON and YAML.
type statusView struct {
	head
	headerView
	Role                string          `json:"role"`
	Term                uint64          `json:"term"`
	LeaderID            string          `json:"leader_id"`
	LeaderContactMillis int64           `json:"leader_contact_ms"`
	Version             string          `json:"version"`
	StartTime           time.Time       `json:"start_time"`
	Fenced              string          `json:"fenced,omitempty"`
	Resources           uint64          `json:"resources"`
	StateBytes          uint64          `json:"state_bytes"`
	StateHash           string          `json:"state_hash"`
	Watchers            uint64          `json:"watchers"`
	Namespaces          []namespaceView `json:"namespaces"`
}

// namespaceView is a namespace of a status.
type namespaceView struct {
	Name        string `json:"name"`
	Root        string `json:"root"`
	ModRevision uint64 `json:"mod_revision"`
	Resources   uint64 `json:"resources"`
}

// memberView is a server in JSON and YAML.
type memberView struct {
	ID       string `json:"id"`
	Role     string `json:"role"`
	Alive    bool   `json:"alive"`
	RaftAddr string `json:"raft_addr"`
	APIAddr  string `json:"api_addr,omitempty"`
	Version  string `json:"version,omitempty"`
	Revision uint64 `json:"revision"`
}

// roleName is the word for a role.
func roleName(r holdfastv1.Role) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(r.String(), "ROLE_")), "_", "-")
}

// clusterCommand is everything about the servers.
func (a *app) clusterCommand() *cobra.Command {
	return a.group("cluster", "The servers: look, change the membership, back up, restore",
		`holdfast cluster status
holdfast cluster members
holdfast cluster backup holdfast.backup
holdfast cluster transfer`,
		a.clusterStatus(), a.clusterMembers(), a.clusterPromote(), a.clusterRemove(), a.clusterTransfer(), a.clusterBackup(), a.clusterRestore())
}

// status asks one server for its status.
func (a *app) status(ctx context.Context) (*holdfastv1.GetStatusResponse, error) {
	res, err := query(ctx, a.remote, &holdfastv1.GetStatusRequest{},
		func(c *grpc.ClientConn) func(context.Context, *holdfastv1.GetStatusRequest, ...grpc.CallOption) (*holdfastv1.GetStatusResponse, error) {
			return holdfastv1.NewClusterServiceClient(c).GetStatus
		})
	return res, a.rpcFailure("get the status", err)
}

// members asks for the servers.
func (a *app) members(ctx context.Context) (*holdfastv1.ListMembersResponse, error) {
	res, err := query(ctx, a.remote, &holdfastv1.ListMembersRequest{},
		func(c *grpc.ClientConn) func(context.Context, *holdfastv1.ListMembersRequest, ...grpc.CallOption) (*holdfastv1.ListMembersResponse, error) {
			return holdfastv1.NewClusterServiceClient(c).ListMembers
		})
	return res, a.rpcFailure("list the members", err)
}

// clusterStatus is `cluster status`.
func (a *app) clusterStatus() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use: "status", Short: "Describe the answering server and its view of the cluster", Args: exactArgs(),
		Example: "holdfast cluster status\nholdfast cluster status --check -q\nholdfast cluster status --addr 10.0.0.2 -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.connect(); err != nil {
				return err
			}
			s, err := a.status(cmd.Context())
			if err != nil {
				return err
			}
			m, err := a.members(cmd.Context())
			if err != nil {
				return err
			}
			switch {
			case check && a.opt.quiet && a.opt.output == "":
				// The exit code is the answer.
			case a.format == tableFormat:
				err = a.tellStatus(s, m)
			default:
				err = a.emit(statusViewOf(s))
			}
			if err != nil {
				return err
			}
			return a.health(s, m, check)
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "exit with 1 when something is wrong: no leader, a dead server, a fenced one; with -q say only that")
	return cmd
}

// health tells what is wrong with the cluster; with check it fails then.
func (a *app) health(s *holdfastv1.GetStatusResponse, m *holdfastv1.ListMembersResponse, check bool) error {
	var faults []string
	if s.GetFenced() != "" {
		faults = append(faults, fmt.Sprintf("server %s is fenced off: %s", s.GetHeader().GetServerId(), s.GetFenced()))
	}
	if s.GetLeaderId() == "" {
		faults = append(faults, "no leader is known: nothing can be changed until a majority of the servers reach each other")
	}
	for _, member := range m.GetMembers() {
		if !member.GetAlive() {
			faults = append(faults, fmt.Sprintf("server %s (%s) is not alive", member.GetId(), member.GetRaftAddr()))
		}
	}
	if check && len(faults) > 0 {
		f := fail(exitError, "the cluster is not well")
		f.details = faults
		return f
	}
	for _, fault := range faults {
		a.warn("%s", fault)
	}
	return nil
}

func statusViewOf(s *holdfastv1.GetStatusResponse) statusView {
	v := statusView{
		head: newHead("ClusterStatus"), headerView: headerViewOf(s.GetHeader()), Role: roleName(s.GetRole()), Term: s.GetTerm(),
		LeaderID: s.GetLeaderId(), LeaderContactMillis: s.GetLeaderContactAge().AsDuration().Milliseconds(), Version: s.GetVersion(),
		StartTime: s.GetStartTime().AsTime(), Fenced: s.GetFenced(), Resources: s.GetResources(), StateBytes: s.GetStateBytes(),
		StateHash: hex.EncodeToString(s.GetStateHash()), Watchers: s.GetWatchers(), Namespaces: []namespaceView{},
	}
	for _, ns := range s.GetNamespaces() {
		v.Namespaces = append(v.Namespaces, namespaceView{ns.GetName(), hex.EncodeToString(ns.GetRoot()), ns.GetModRevision(), ns.GetResources()})
	}
	return v
}

// tellStatus writes the status for people.
func (a *app) tellStatus(s *holdfastv1.GetStatusResponse, m *holdfastv1.ListMembersResponse) error {
	alive, voters := 0, 0
	for _, member := range m.GetMembers() {
		if member.GetAlive() {
			alive++
		}
		if member.GetRole() != holdfastv1.Role_ROLE_NON_VOTER {
			voters++
		}
	}
	h := headerViewOf(s.GetHeader())
	t := table{paint: func(_, column int, text string) string {
		if column == 0 {
			return a.out.bold(text)
		}
		return text
	}}
	t.row("Server", fmt.Sprintf("%s (%s, version %s, up %s)", h.ServerID, roleName(s.GetRole()), cmp.Or(s.GetVersion(), "unknown"),
		human(a.now().Sub(s.GetStartTime().AsTime()))))
	leader := cmp.Or(s.GetLeaderId(), "none")
	if age := s.GetLeaderContactAge().AsDuration(); s.GetLeaderId() != "" && s.GetLeaderId() != h.ServerID {
		leader += fmt.Sprintf(" (heard %s ago)", age.Round(time.Millisecond))
	}
	t.row("Leader", leader)
	t.row("Term", fmt.Sprint(s.GetTerm()))
	t.row("Servers", fmt.Sprintf("%d, %d alive, %d voting", len(m.GetMembers()), alive, voters))
	t.row("Revision", fmt.Sprint(h.Revision))
	t.row("Epoch", fmt.Sprintf("%d of lineage %s", h.Epoch, h.Lineage))
	t.row("State", fmt.Sprintf("%s, %s", plural(int(s.GetResources()), "resource"), humanBytes(s.GetStateBytes())))
	t.row("Watchers", fmt.Sprint(s.GetWatchers()))
	for i, ns := range s.GetNamespaces() {
		title := "Namespaces"
		if i > 0 {
			title = ""
		}
		t.row(title, fmt.Sprintf("%s (%s, changed at revision %d, root %.12s)", ns.GetName(), plural(int(ns.GetResources()), "resource"),
			ns.GetModRevision(), hex.EncodeToString(ns.GetRoot())))
	}
	return t.write(a.io.Out)
}

// clusterMembers is `cluster members`.
func (a *app) clusterMembers() *cobra.Command {
	return &cobra.Command{
		Use: "members", Aliases: []string{"list", "ls"}, Short: "List the servers", Args: exactArgs(),
		Long:    "List the servers. REPORTED is the revision that each of them told last; it may be 15 s old, so that\na leader can seem to be behind its followers.",
		Example: "holdfast cluster members\nholdfast cluster members -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.connect(); err != nil {
				return err
			}
			res, err := a.members(cmd.Context())
			if err != nil {
				return err
			}
			if len(res.GetMembers()) == 0 {
				a.warn("waiting for a cluster: the server has neither founded nor joined one yet; its log says what it waits for")
			}
			if a.format != tableFormat {
				list := listView[memberView]{head: newHead("MemberList"), Revision: res.GetHeader().GetRevision(), Items: []memberView{}}
				for _, m := range res.GetMembers() {
					list.Items = append(list.Items, memberView{
						m.GetId(), roleName(m.GetRole()), m.GetAlive(), m.GetRaftAddr(), m.GetApiAddr(), m.GetVersion(), m.GetRevision(),
					})
				}
				return a.emit(list)
			}
			if len(res.GetMembers()) == 0 {
				return nil
			}
			t := table{}
			t.row("ID", "ROLE", "ALIVE", "RAFT", "API", "VERSION", "REPORTED")
			for _, m := range res.GetMembers() {
				alive := "no"
				if m.GetAlive() {
					alive = "yes"
				}
				t.row(m.GetId(), roleName(m.GetRole()), alive, m.GetRaftAddr(), cmp.Or(m.GetApiAddr(), "-"), cmp.Or(m.GetVersion(), "-"), fmt.Sprint(m.GetRevision()))
			}
			t.paint = func(row, column int, text string) string {
				switch {
				case row == 0:
					return a.out.bold(text)
				case column == 2 && text == "no":
					return a.out.red(text)
				}
				return text
			}
			return t.write(a.io.Out)
		},
	}
}

// findMember returns a server by its id, or by the beginning of it where that is
// enough to tell it from the others.
func (a *app) findMember(ctx context.Context, id string) (*holdfastv1.Member, error) {
	res, err := a.members(ctx)
	if err != nil {
		return nil, err
	}
	var ids []string
	var found []*holdfastv1.Member
	for _, m := range res.GetMembers() {
		ids = append(ids, m.GetId())
		if m.GetId() == id {
			return m, nil
		}
		if strings.HasPrefix(m.GetId(), id) {
			found = append(found, m)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	f := fail(exitNotFound, "there is no server %q", id)
	if len(found) > 1 {
		f = usage("%q is the beginning of %d servers", id, len(found))
	}
	return nil, f.hint("the servers are: %s", strings.Join(ids, ", "))
}

// completeMembers completes the ids of servers.
func (a *app) completeMembers(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var out []string
	if len(args) == 0 && a.quickly(cmd) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		if res, err := a.members(ctx); err == nil {
			for _, m := range res.GetMembers() {
				out = append(out, m.GetId()+"\t"+roleName(m.GetRole())+" "+m.GetRaftAddr())
			}
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// clusterPromote is `cluster promote ID`.
func (a *app) clusterPromote() *cobra.Command {
	return &cobra.Command{
		Use: "promote ID", Short: "Make a caught-up server without a vote a voter",
		Long:    "Make a caught-up server without a vote a voter. Servers that join are promoted by themselves.",
		Example: "holdfast cluster promote 7f3a",
		Args:    exactArgs("ID"), ValidArgsFunction: a.completeMembers,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if err := a.connect(); err != nil {
				return err
			}
			m, err := a.findMember(ctx, args[0])
			if err != nil {
				return err
			}
			_, err = once(ctx, a.remote, &holdfastv1.PromoteMemberRequest{Id: m.GetId()},
				func(c *grpc.ClientConn) func(context.Context, *holdfastv1.PromoteMemberRequest, ...grpc.CallOption) (*holdfastv1.PromoteMemberResponse, error) {
					return holdfastv1.NewClusterServiceClient(c).PromoteMember
				})
			if err != nil {
				return a.rpcFailure("promote "+m.GetId(), err)
			}
			return a.say("%s is a voter", m.GetId())
		},
	}
}

// clusterRemove is `cluster remove ID`.
func (a *app) clusterRemove() *cobra.Command {
	var yes, force bool
	cmd := &cobra.Command{
		Use: "remove ID", Short: "Remove a server from the cluster for good",
		Long:    "Remove a server from the cluster for good. Its id is never used again: to bring the machine\nback, empty its data directory first. Refused while too few of the others are alive.",
		Example: "holdfast cluster remove 7f3a --yes",
		Args:    exactArgs("ID"), ValidArgsFunction: a.completeMembers,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if err := a.connect(); err != nil {
				return err
			}
			m, err := a.findMember(ctx, args[0])
			if err != nil {
				return err
			}
			state := "dead"
			if m.GetAlive() {
				state = "alive"
			}
			what := fmt.Sprintf("remove server %s (%s, %s, %s) for good", m.GetId(), roleName(m.GetRole()), m.GetRaftAddr(), state)
			if err := a.asker.confirm(yes, what); err != nil {
				return err
			}
			_, err = once(ctx, a.remote, &holdfastv1.RemoveMemberRequest{Id: m.GetId(), Force: force},
				func(c *grpc.ClientConn) func(context.Context, *holdfastv1.RemoveMemberRequest, ...grpc.CallOption) (*holdfastv1.RemoveMemberResponse, error) {
					return holdfastv1.NewClusterServiceClient(c).RemoveMember
				})
			if err != nil {
				return a.rpcFailure("remove "+m.GetId(), err)
			}
			return a.say("%s is removed", m.GetId())
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&force, "force", false, "although too few of the remaining voters are alive")
	return cmd
}

// clusterTransfer is `cluster transfer [ID]`.
func (a *app) clusterTransfer() *cobra.Command {
	return &cobra.Command{
		Use: "transfer [ID]", Short: "Hand the leadership to another server",
		Example: "holdfast cluster transfer\nholdfast cluster transfer 7f3a",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("unexpected argument %q", args[1]).hint("usage: %s", cmd.UseLine())
			}
			return nil
		},
		ValidArgsFunction: a.completeMembers,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if err := a.connect(); err != nil {
				return err
			}
			id := ""
			if len(args) == 1 {
				m, err := a.findMember(ctx, args[0])
				if err != nil {
					return err
				}
				id = m.GetId()
			}
			res, err := once(ctx, a.remote, &holdfastv1.TransferLeadershipRequest{Id: id},
				func(c *grpc.ClientConn) func(context.Context, *holdfastv1.TransferLeadershipRequest, ...grpc.CallOption) (*holdfastv1.TransferLeadershipResponse, error) {
					return holdfastv1.NewClusterServiceClient(c).TransferLeadership
				})
			if err != nil {
				return a.rpcFailure("transfer the leadership", err)
			}
			return a.say("the leader is %s", cmp.Or(res.GetLeaderId(), id, "not known yet; see `holdfast cluster status`"))
		},
	}
}
