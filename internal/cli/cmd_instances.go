package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/flags"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// instanceListView is a list of instances in JSON and YAML.
type instanceListView struct {
	listView[instanceView]
	// Unreachable are servers whose instances are missing.
	Unreachable []unreachableView `json:"unreachable"`
}

// instanceList is what the servers know of the instances.
type instanceList struct {
	instances   []*holdfastv1.Instance
	unreachable []unreachableView
	header      *holdfastv1.Header
}

// listInstances returns all pages; more tells after each whether there is to be
// another.
func (a *app) listInstances(ctx context.Context, req *holdfastv1.ListInstancesRequest, more func([]*holdfastv1.Instance) bool) (*instanceList, error) {
	list := &instanceList{}
	for {
		res, err := a.instancePage(ctx, req)
		if err != nil {
			return nil, err
		}
		list.header = res.GetHeader()
		list.instances = append(list.instances, res.GetInstances()...)
		for _, s := range unreachableViews(res.GetUnreachable()) {
			if !slices.ContainsFunc(list.unreachable, func(have unreachableView) bool { return have.ServerID == s.ServerID }) {
				list.unreachable = append(list.unreachable, s)
			}
		}
		if req.PageToken = res.GetNextPageToken(); req.PageToken == "" || more != nil && !more(list.instances) {
			return list, nil
		}
	}
}

// instancePage returns one page. A server that does not know its instances is passed
// over: during an upgrade the next one may.
func (a *app) instancePage(ctx context.Context, req *holdfastv1.ListInstancesRequest) (*holdfastv1.ListInstancesResponse, error) {
	var res *holdfastv1.ListInstancesResponse
	var err error
	for range a.remote.addrs {
		res, err = query(ctx, a.remote, req,
			func(c *grpc.ClientConn) func(context.Context, *holdfastv1.ListInstancesRequest, ...grpc.CallOption) (*holdfastv1.ListInstancesResponse, error) {
				return holdfastv1.NewInstanceServiceClient(c).ListInstances
			})
		if status.Code(err) != codes.Unimplemented {
			break
		}
		a.remote.current = (a.remote.current + 1) % len(a.remote.addrs)
	}
	if err == nil {
		a.learnTime(res.GetHeader())
	}
	return res, err
}

// newest learns what an up-to-date instance of the namespace obeys.
func (a *app) newest(ctx context.Context) (*newest, error) {
	s, err := a.status(ctx)
	if err != nil {
		return nil, err
	}
	n := &newest{epoch: s.GetHeader().GetEpoch()}
	for _, ns := range s.GetNamespaces() {
		if ns.GetName() == a.namespace() {
			n.revision = ns.GetModRevision()
		}
	}
	return n, nil
}

// newestRevision is the value of --behind without a revision.
const newestRevision = "newest"

// instancesFlags select what `instances` shows.
type instancesFlags struct {
	selector, behind string
	all              bool
}

// filter reads the flags.
func (f *instancesFlags) filter(namespace string) (*holdfastv1.InstanceFilter, error) {
	filter := &holdfastv1.InstanceFilter{Namespace: namespace}
	if strings.TrimSpace(f.selector) == "" {
		return filter, nil
	}
	parsed, err := flags.ParseSelector(f.selector)
	if err != nil {
		return nil, usage("--selector: %v", err).
			hint("write terms joined by commas: service=checkout, zone in (eu-1,eu-2), tier!=gold, !canary")
	}
	filter.Selector = parsed.String()
	return filter, nil
}

// behindRevision reads --behind; 0 means that it was not given.
func (f *instancesFlags) behindRevision(to *newest) (uint64, error) {
	switch f.behind {
	case "":
		return 0, nil
	case newestRevision:
		return to.revision, nil
	}
	revision, err := strconv.ParseUint(f.behind, 10, 64)
	if err != nil || revision == 0 {
		return 0, usage("--behind %q is not a revision", f.behind).hint("leave the number out to mean the newest")
	}
	return revision, nil
}

// instancesCommand is everything about instances.
func (a *app) instancesCommand() *cobra.Command {
	cmd := a.instancesList("instances")
	cmd.Aliases = []string{"instance"}
	list := a.instancesList("list")
	list.Aliases = []string{"ls"}
	cmd.AddCommand(list, a.instancesDescribe())
	return cmd
}

// instancesList is `instances` and `instances list`.
func (a *app) instancesList(use string) *cobra.Command {
	f := &instancesFlags{}
	cmd := &cobra.Command{
		Use: use, Short: "List the instances of the namespace, and what they obey",
		Long: `List the instances that are connected to any of the servers: which revision each obeys, how far
that is behind the last change of the namespace, and what keeps it from obeying all of it. Servers
that could not be asked are named; their instances are missing then.`,
		Example: `holdfast instances
holdfast instances --behind
holdfast instances --behind 52 -l 'service=checkout,zone in (eu-1,eu-2)'
holdfast instances --all -o wide
holdfast instances describe checkout-7`,
	}
	cmd.Flags().StringVarP(&f.selector, "selector", "l", "", "only these: label `selector`, as in scopes: 'service=checkout,zone in (eu-1,eu-2)'")
	cmd.Flags().BoolVar(&f.all, "all", false, "those that are not connected any more as well")
	cmd.Flags().StringVar(&f.behind, "behind", "", "only those that do not obey this `revision` yet; without a number, the newest")
	cmd.Flags().Lookup("behind").NoOptDefVal = newestRevision
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		// The number after --behind is an argument to whoever parses flags whose value
		// may be left out.
		if len(args) == 1 && f.behind == newestRevision && strings.Trim(args[0], "0123456789") == "" {
			f.behind, args = args[0], nil
		}
		if len(args) > 0 && cmd.HasSubCommands() {
			return a.groupRun(cmd, args)
		}
		if err := exactArgs()(cmd, args); err != nil {
			return err
		}
		if err := a.connect(); err != nil {
			return err
		}
		return a.showInstances(cmd.Context(), f)
	}
	cmd.Args = cobra.ArbitraryArgs
	return cmd
}

// showInstances writes the instances that the flags select.
func (a *app) showInstances(ctx context.Context, f *instancesFlags) error {
	filter, err := f.filter(a.namespace())
	if err != nil {
		return err
	}
	to, err := a.newest(ctx)
	if err != nil {
		return err
	}
	behind, err := f.behindRevision(to)
	if err != nil {
		return err
	}
	list := &instanceList{}
	if f.behind == "" || behind > 0 { // nobody is behind where nothing was ever changed
		list, err = a.listInstances(ctx, &holdfastv1.ListInstancesRequest{
			Filter: filter, IncludeDisconnected: f.all, Behind: behind, PageSize: pageSize,
		}, nil)
		if err != nil {
			return a.rpcFailure("list instances", err)
		}
	}
	views := instanceViews(list.instances, to)
	if a.format == tableFormat {
		if len(views) > 0 {
			err = a.instanceTable(views)
		}
		a.notice("%s", a.sumInstances(views, f, behind, to))
	} else {
		err = a.emit(instanceListView{
			listView:    listView[instanceView]{head: newHead("InstanceList"), Revision: list.header.GetRevision(), Items: views},
			Unreachable: slices.Concat([]unreachableView{}, list.unreachable),
		})
	}
	for _, s := range list.unreachable {
		a.warn("%s", s)
	}
	return err
}

// sumInstances sums a list up.
func (a *app) sumInstances(views []instanceView, f *instancesFlags, behind uint64, to *newest) string {
	chosen := ""
	if f.selector != "" {
		chosen = " of those selected"
	}
	switch {
	case len(views) == 0 && f.behind != "":
		return fmt.Sprintf("no connected instance%s%s is behind revision %d", a.inNamespace(), chosen, behind)
	case len(views) == 0 && f.all:
		return fmt.Sprintf("no instance%s%s is known", a.inNamespace(), chosen)
	case len(views) == 0:
		return fmt.Sprintf("no instance%s%s is connected; --all lists those that were", a.inNamespace(), chosen)
	}
	connected, late, impaired := 0, 0, 0
	for _, v := range views {
		if v.Connected {
			connected++
		}
		switch {
		case v.Connected && v.Obeys != nil && !*v.Obeys:
			late++
		case v.Connected && len(v.impairments()) > 0:
			impaired++
		}
	}
	text := fmt.Sprintf("%s, %s connected", plural(len(views), "instance"), humanCount(connected))
	if late > 0 {
		text += fmt.Sprintf(", %s behind revision %d", humanCount(late), to.revision)
	}
	if impaired > 0 {
		text += fmt.Sprintf(", %s that cannot obey all of it or %s overridden locally", humanCount(impaired), verb(impaired, "is", "are"))
	}
	return text
}

// instancesDescribe is `instances describe ID`.
func (a *app) instancesDescribe() *cobra.Command {
	return &cobra.Command{
		Use: "describe ID", Aliases: []string{"get", "show"}, Short: "Show one instance: labels, what it obeys, its problems",
		Long:    "Show one instance, also one that is not connected any more. The beginning of an id is enough\nwhere no other begins like it.",
		Example: "holdfast instances describe checkout-7\nholdfast instances describe checkout-7 -o yaml",
		Args:    exactArgs("ID"), ValidArgsFunction: a.completeInstances,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if err := a.connect(); err != nil {
				return err
			}
			to, err := a.newest(ctx)
			if err != nil {
				return err
			}
			found, err := a.findInstance(ctx, args[0])
			if err != nil {
				return err
			}
			v := instanceViewOf(found, to)
			if a.format == tableFormat {
				return a.tellInstance(v, to)
			}
			return a.emit(struct {
				head
				instanceView
			}{newHead("Instance"), v})
		},
	}
}

// findInstance returns an instance by its id, or by the beginning of it where that
// is enough to tell it from the others.
func (a *app) findInstance(ctx context.Context, id string) (*holdfastv1.Instance, error) {
	exact := func(i *holdfastv1.Instance) bool { return i.GetIdentity().GetId() == id }
	list, err := a.listInstances(ctx, &holdfastv1.ListInstancesRequest{
		Filter: &holdfastv1.InstanceFilter{Namespace: a.namespace()}, IncludeDisconnected: true, PageSize: pageSize,
	}, func(all []*holdfastv1.Instance) bool { return !slices.ContainsFunc(all, exact) })
	if err != nil {
		return nil, a.rpcFailure("find instance "+id, err)
	}
	if at := slices.IndexFunc(list.instances, exact); at >= 0 {
		return list.instances[at], nil
	}
	var ids []string
	var found []*holdfastv1.Instance
	for _, i := range list.instances {
		ids = append(ids, i.GetIdentity().GetId())
		if strings.HasPrefix(i.GetIdentity().GetId(), id) {
			found = append(found, i)
		}
	}
	return a.onlyInstance(id, found, ids, list.unreachable)
}

// onlyInstance returns the one that was found, or says why it is not one.
func (a *app) onlyInstance(id string, found []*holdfastv1.Instance, ids []string, unreachable []unreachableView) (*holdfastv1.Instance, error) {
	var f *failure
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		f = usage("%q is the beginning of %s", id, plural(len(found), "instance"))
		for _, i := range found[:min(len(found), namedInstances)] {
			f.addDetail("%s", i.GetIdentity().GetId())
		}
		return nil, f
	case len(unreachable) > 0:
		f = fail(exitUnavailable, "it is not known whether there is an instance %q%s: not every server could be asked", id, a.inNamespace())
		for _, s := range unreachable {
			f.addDetail("%s", s)
		}
		return nil, f
	}
	f = fail(exitNotFound, "there is no instance %q%s", id, a.inNamespace())
	if hint := didYouMean(id, ids); hint != "" {
		return nil, f.hint("%s", hint)
	}
	return nil, f.hint("see `holdfast instances --all`")
}

// completeInstances completes the ids of instances.
func (a *app) completeInstances(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	var out []string
	if len(args) == 0 && a.quickly(cmd) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		res, err := a.instancePage(ctx, &holdfastv1.ListInstancesRequest{
			Filter: &holdfastv1.InstanceFilter{Namespace: a.namespace()}, IncludeDisconnected: true, PageSize: pageSize,
		})
		if err == nil {
			for _, i := range res.GetInstances() {
				if id := i.GetIdentity(); strings.HasPrefix(id.GetId(), typed) {
					out = append(out, id.GetId()+"\t"+id.GetService())
				}
			}
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
