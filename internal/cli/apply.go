package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// How much one transaction of apply carries. The servers accept 1,024 steps and
// 512 KiB; staying below leaves room for what they add.
const (
	maxTransactionSteps = 500
	maxTransactionBytes = 400 << 10
)

// step is one operation of apply and where it comes from; from is nil for a
// deletion by --prune.
type step struct {
	op   *holdfastv1.Operation
	from *manifest
}

// plan is what apply is about to do.
type plan struct {
	steps  []step
	reason string
	dryRun bool
	// batches are the steps cut into transactions.
	batches [][]step
}

// newPlan turns manifests and deletions into transactions: definitions first,
// deletions last.
func newPlan(manifests []*manifest, prune []*holdfastv1.Resource, reason string, dryRun bool) *plan {
	p := &plan{reason: strings.TrimSpace(reason), dryRun: dryRun}
	for _, m := range manifests {
		p.steps = append(p.steps, step{&holdfastv1.Operation{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
			Key: m.key.Proto(m.namespace), Spec: m.spec, Labels: m.labels,
		}}}, m})
	}
	for _, r := range prune {
		p.steps = append(p.steps, step{deleteOf(r), nil})
	}
	size := 0
	for i, s := range p.steps {
		n := proto.Size(s.op) + 8
		last := len(p.batches) - 1
		if i == 0 || size+n > maxTransactionBytes || len(p.batches[last]) == maxTransactionSteps {
			p.batches, size, last = append(p.batches, nil), 0, last+1
		}
		p.batches[last] = append(p.batches[last], s)
		size += n
	}
	return p
}

// request returns the transaction of a batch.
func (p *plan) request(batch []step, actor string, dryRun bool) *holdfastv1.ApplyRequest {
	req := &holdfastv1.ApplyRequest{Reason: p.reason, ClaimedActor: actor, DryRun: dryRun}
	for _, s := range batch {
		req.Operations = append(req.Operations, s.op)
	}
	return req
}

// execute runs the plan. Several transactions are planned by the servers first,
// so that a fault in the last one stops the first one as well.
func (a *app) execute(ctx context.Context, p *plan, v *resultView) error {
	if len(p.batches) > 1 || p.dryRun {
		if err := a.preflight(ctx, p, v); err != nil || p.dryRun {
			return err
		}
		a.notice("%s do not fit into one transaction: they are committed in %d, each of them all or nothing",
			plural(len(p.steps), "change"), len(p.batches))
	}
	done := 0
	for i, batch := range p.batches {
		if len(p.batches) > 1 {
			a.progress("transaction %d of %d", i+1, len(p.batches))
		}
		req := p.request(batch, a.actor(), false)
		res, err := a.remote.apply(ctx, req)
		if err != nil {
			a.clearProgress()
			return a.stopped(p, v, i, done, a.stepFailure(batch, err))
		}
		v.add(req, res)
		done += len(batch)
	}
	if len(p.batches) > 1 {
		a.clearProgress()
	}
	return nil
}

// preflight lets the servers plan every transaction without committing it, and
// reports what is wrong with any of them at once. The result of a dry run is
// kept in v.
func (a *app) preflight(ctx context.Context, p *plan, v *resultView) error {
	var all *failure
	for _, batch := range p.batches {
		req := p.request(batch, a.actor(), true)
		res, err := a.remote.apply(ctx, req)
		var f *failure
		switch {
		case err == nil:
			if p.dryRun {
				v.add(req, res)
			}
			continue
		case !errors.As(a.stepFailure(batch, err), &f) || f.code != exitUsage && f.code != exitRefused:
			return a.stepFailure(batch, err)
		case all == nil:
			all = f
		default:
			all.details = append(all.details, f.details...)
		}
	}
	if all != nil {
		return all
	}
	return nil
}

// stopped says how far apply got.
func (a *app) stopped(p *plan, v *resultView, batch, done int, err error) error {
	if len(p.batches) == 1 {
		return err
	}
	var f *failure
	if !errors.As(err, &f) {
		return err
	}
	if batch == 0 {
		f.addDetail("this was the first of %d transactions; nothing before it was committed", len(p.batches))
	} else {
		f.addDetail("transaction %d of %d; the %s before it are committed (revision %d)", batch+1, len(p.batches), plural(done, "change"), v.Revision)
	}
	return f.hint("run the same command again: what is committed already counts as unchanged")
}

// operationField finds the number of the step in the name of a field.
var operationField = regexp.MustCompile(`^operations\[(\d+)\]\.?(?:put\.)?(?:spec\b\.?)?(.*)$`)

// stepFailure turns an error of a transaction into one that names files and
// lines instead of numbers of steps.
func (a *app) stepFailure(batch []step, err error) error {
	out := a.rpcFailure("apply", err)
	var f *failure
	if !errors.As(out, &f) {
		return out
	}
	st, ok := status.FromError(err)
	if !ok {
		return out
	}
	var details []string
	for _, d := range st.Details() {
		bad, ok := d.(*errdetails.BadRequest)
		if !ok {
			continue
		}
		for _, v := range bad.GetFieldViolations() {
			details = append(details, located(batch, v.GetField(), v.GetDescription()))
		}
	}
	if len(details) > 0 {
		f.what = fmt.Sprintf("the servers refused %s", plural(len(details), "definition"))
		f.details = details
	}
	return f
}

// located rewrites the field of a step as the place in the file.
func located(batch []step, field, description string) string {
	m := operationField.FindStringSubmatch(field)
	if m == nil {
		return specViolation(field, description)
	}
	i, err := strconv.Atoi(m[1])
	if err != nil || i >= len(batch) || batch[i].from == nil {
		return specViolation(field, description)
	}
	from := batch[i].from
	line := from.line
	if at := from.specNode.Locate(m[2]); at != nil && m[2] != "" {
		line = at.Line
	}
	return problem{file: from.file, line: line, key: from.String(), path: m[2], text: description}.String()
}

// pruned lists what --prune deletes: the declared resources of the namespaces in
// question that carry the labels and are not in the files.
func (a *app) pruned(ctx context.Context, manifests []*manifest, labels map[string]string) ([]*holdfastv1.Resource, error) {
	if len(manifests) == 0 {
		return nil, fail(exitRefused, "the files declare nothing; refusing to prune everything").
			hint("delete what is meant with `holdfast flag delete`, `mode delete` or `policy delete`")
	}
	keep := map[string]bool{}
	namespaces := []string{a.namespace()}
	unlabelled := 0
	for _, m := range manifests {
		keep[m.namespace+"\x00"+m.String()] = true
		if !slices.Contains(namespaces, m.namespace) {
			namespaces = append(namespaces, m.namespace)
		}
		for k, v := range labels {
			if m.labels[k] != v {
				unlabelled++
				break
			}
		}
	}
	if unlabelled > 0 {
		a.warn("%s in the files without the labels of --prune; a later --prune will not find them", plural(unlabelled, "resource"))
	}
	sort.Strings(namespaces)
	var out []*holdfastv1.Resource
	for _, ns := range namespaces {
		for _, kind := range []document.Kind{document.Flag, document.Mode, document.Policy} {
			list, _, err := a.list(ctx, &holdfastv1.ListRequest{
				Namespace: ns, Kind: holdfastv1.Kind(kind), Labels: labels, Read: readOptions(true),
			})
			if err != nil {
				return nil, a.rpcFailure("list what --prune would delete", err)
			}
			for _, r := range list {
				if !keep[ns+"\x00"+keyText(r.GetKey())] {
					out = append(out, r)
				}
			}
		}
	}
	return out, nil
}
