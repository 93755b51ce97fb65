package demo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/examples/shop/internal/fleet"
	"github.com/holdfast-dev/holdfast/examples/shop/internal/load"
	"github.com/holdfast-dev/holdfast/examples/shop/internal/service"
)

// stepWithin is how long what a step waits for may take.
const stepWithin = 20 * time.Second

// The methods that the script breaks.
const (
	charge = "/shop.Payments/Charge"
	place  = "/shop.Orders/Place"
)

// Script plays what the README lets people try, and returns what did not go as
// promised.
func (d *Demo) Script(ctx context.Context) error {
	steps := []struct {
		title string
		play  func(context.Context) error
	}{
		{"everything works", d.healthy},
		{"payments break: orders are accepted, the money comes later", d.paymentsBreak},
		{"payments work again: all is paid", d.paymentsMend},
		{"read-only: once --wait returns, nobody orders any more", d.readOnly},
		{"orders are slow: browsing and baskets do not suffer", d.ordersClog},
		{"the control plane is lost: the shop goes on as decided", d.controlPlaneLost},
		{"the control plane is back: everybody obeys it again", d.controlPlaneBack},
	}
	for _, step := range steps {
		began := time.Now()
		if err := step.play(ctx); err != nil {
			return fmt.Errorf("%s: %w\n%s", step.title, err, strings.Join(d.Look(ctx).Lines(false, math.MaxInt), "\n"))
		}
		d.say("ok   %-70s %5.1f s", step.title, time.Since(began).Seconds())
		d.say("     %s", d.Look(ctx).Line())
	}
	return nil
}

// healthy waits until everybody is connected and everything that customers do works.
func (d *Demo) healthy(ctx context.Context) error {
	err := poll(ctx, stepWithin, func(ctx context.Context) error {
		return errors.Join(d.each(ctx, service.Names(), connected), d.sameRevision(ctx))
	})
	if err != nil {
		return err
	}
	return d.all(ctx, load.OK, load.Ops()...)
}

// paymentsBreak breaks payments. Nobody may fail: the fallback accepts orders, first
// for failing calls, then, with the breakers open, at once.
func (d *Demo) paymentsBreak(ctx context.Context) error {
	before := d.totals()
	if err := d.override(ctx, "flag", "set", "payments-broken", "--variant", "on"); err != nil {
		return err
	}
	err := poll(ctx, stepWithin, func(ctx context.Context) error {
		return d.each(ctx, []string{service.Orders}, func(i fleet.Instance) error {
			if !slices.ContainsFunc(i.Open(), func(s string) bool { return strings.HasPrefix(s, "payments Charge ") }) {
				return fmt.Errorf("%s has not opened the breaker of payments", i.Name)
			}
			if i.Report.GetPendingPayments() == 0 {
				return fmt.Errorf("%s has no payment pending", i.Name)
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	return errors.Join(d.all(ctx, load.Degraded, load.Checkout), d.all(ctx, load.OK, load.Browse, load.Basket), d.nobodyFailed(before))
}

// paymentsMend lets the breakers close and the pending payments be taken.
func (d *Demo) paymentsMend(ctx context.Context) error {
	before := d.totals()
	if _, err := d.Holdfast(ctx, "flag", "clear", "payments-broken", "--reason", "drill over"); err != nil {
		return err
	}
	err := poll(ctx, stepWithin, func(ctx context.Context) error {
		return d.each(ctx, []string{service.Orders}, func(i fleet.Instance) error {
			if open := i.Open(); len(open) > 0 {
				return fmt.Errorf("%s still has %s", i.Name, strings.Join(open, ", "))
			}
			if n := i.Report.GetPendingPayments(); n > 0 {
				return fmt.Errorf("%s still has %d payments pending", i.Name, n)
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	return errors.Join(d.all(ctx, load.OK, load.Ops()...), d.nobodyFailed(before))
}

// readOnly freezes the shop. What `--wait` promises is exact: no call that begins
// after it returned is served otherwise.
func (d *Demo) readOnly(ctx context.Context) error {
	before := d.totals()
	out, err := d.Holdfast(ctx, "mode", "set", service.Mode, "read-only", "--for", "10m", "--reason", "drill", "--wait")
	if err != nil {
		return err
	}
	if all := fmt.Sprintf("all %d connected instances obey", perService*len(service.Names())); !strings.Contains(out, all) {
		return fmt.Errorf("--wait did not say %q:\n%s", all, out)
	}
	for range 10 {
		outcome, err := d.Customers.Call(ctx, load.Checkout)
		text := status.Convert(err).Message()
		if outcome != load.Refused || status.Code(err) != codes.Unavailable || !strings.Contains(text, "read-only") {
			return fmt.Errorf("a checkout is %s, want it refused as read-only: %q", outcome, text)
		}
		for _, op := range []load.Op{load.Browse, load.Basket} {
			if outcome, err := d.Customers.Call(ctx, op); outcome > load.Degraded {
				return fmt.Errorf("%s is %s: %w", op, outcome, err)
			}
		}
	}
	// The shelf comes from the cache, and says so.
	if err := d.all(ctx, load.Degraded, load.Browse); err != nil {
		return err
	}
	if err := d.clear(ctx, "mode", service.Mode); err != nil {
		return err
	}
	return errors.Join(d.all(ctx, load.OK, load.Ops()...), d.nobodyFailed(before))
}

// ordersClog makes placing an order slow, so that its few places are taken all the
// time. Checkouts beyond them keep their baskets; the others notice nothing.
func (d *Demo) ordersClog(ctx context.Context) error {
	before := d.totals()
	if err := d.override(ctx, "flag", "set", "orders-slow", "--variant", "on"); err != nil {
		return err
	}
	err := poll(ctx, stepWithin, func(ctx context.Context) error {
		return d.each(ctx, []string{service.Storefront}, func(i fleet.Instance) error {
			for _, dependency := range i.Report.GetDependencies() {
				for _, b := range dependency.GetBreakers() {
					if b.GetTarget() == place && b.GetCrowdedOut() >= 5 {
						return nil
					}
				}
			}
			return fmt.Errorf("%s turned no orders away", i.Name)
		})
	})
	if err != nil {
		return err
	}
	during := d.totals()
	err = poll(ctx, stepWithin, func(context.Context) error {
		for _, op := range []load.Op{load.Browse, load.Basket} {
			if got := d.Customers.Read(op).Total.Minus(during[op]); got.All() < 20 || got[load.OK] != got.All() {
				return fmt.Errorf("%s: %d of %d were served as ever", op, got[load.OK], got.All())
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if got := d.Customers.Read(load.Checkout).Total.Minus(during[load.Checkout]); got[load.Degraded] == 0 {
		return fmt.Errorf("no basket was kept: %v", got)
	}
	if err := d.clear(ctx, "flag", "orders-slow"); err != nil {
		return err
	}
	return errors.Join(d.all(ctx, load.OK, load.Ops()...), d.nobodyFailed(before))
}

// controlPlaneLost kills all servers while a level is set. Cut off, instances obey
// it on, and so does one that starts anew from its disk.
func (d *Demo) controlPlaneLost(ctx context.Context) error {
	before := d.totals()
	if err := d.override(ctx, "mode", "set", service.Mode, "cache-only"); err != nil {
		return err
	}
	if _, err := d.Processes.Kill(controlPlane); err != nil {
		return err
	}
	err := poll(ctx, stepWithin, func(ctx context.Context) error {
		return d.each(ctx, service.Names(), func(i fleet.Instance) error {
			if i.Report.GetConnected() {
				return fmt.Errorf("%s still says that it is connected", i.Name)
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	if err := d.restartCutOff(ctx, "payments-1"); err != nil {
		return err
	}
	if err := d.all(ctx, load.Degraded, load.Browse); err != nil {
		return err
	}
	return errors.Join(d.all(ctx, load.OK, load.Basket, load.Checkout), d.nobodyFailed(before))
}

// restartCutOff restarts an instance that can reach no server: it takes up what it
// obeyed. It ends in an orderly way, since the disk of one that is killed may lack
// what was decided in its last second.
func (d *Demo) restartCutOff(ctx context.Context, name string) error {
	before, err := d.Fleet.AskOne(ctx, name)
	if err != nil || !before.Up() {
		return errors.Join(fmt.Errorf("%s is not up before it is restarted", name), err, before.Err)
	}
	for _, change := range []func(string) ([]string, error){d.Processes.End, d.Processes.Start} {
		if names, err := change(name); err != nil || len(names) != 1 {
			return errors.Join(fmt.Errorf("restart %s: changed %v", name, names), err)
		}
	}
	return poll(ctx, stepWithin, func(ctx context.Context) error {
		i, err := d.Fleet.AskOne(ctx, name)
		if err = errors.Join(err, i.Err, d.Processes.Ended(name)); err != nil {
			return err
		}
		got, want := i.Report, before.Report
		if got.GetSource() != "disk" || got.GetRevision() != want.GetRevision() || got.GetLevel() != "cache-only" {
			return fmt.Errorf("%s did not take up revision %d from its disk: it has %d from %s at level %s",
				name, want.GetRevision(), got.GetRevision(), got.GetSource(), got.GetLevel())
		}
		return nil
	})
}

// controlPlaneBack starts the servers again and ends what was set.
func (d *Demo) controlPlaneBack(ctx context.Context) error {
	before := d.totals()
	if _, err := d.Processes.Start(controlPlane); err != nil {
		return err
	}
	if err := d.WaitServers(ctx); err != nil {
		return err
	}
	err := poll(ctx, stepWithin, func(ctx context.Context) error { return d.each(ctx, service.Names(), connected) })
	if err != nil {
		return err
	}
	if err := d.clear(ctx, "mode", service.Mode); err != nil {
		return err
	}
	if err := d.sameRevision(ctx); err != nil {
		return err
	}
	return errors.Join(d.all(ctx, load.OK, load.Ops()...), d.nobodyFailed(before))
}

// override sets something for a while and waits until everybody obeys.
func (d *Demo) override(ctx context.Context, args ...string) error {
	_, err := d.Holdfast(ctx, append(args, "--for", "10m", "--reason", "drill", "--wait")...)
	return err
}

// clear ends what was set and waits until everybody obeys.
func (d *Demo) clear(ctx context.Context, kind, name string) error {
	_, err := d.Holdfast(ctx, kind, "clear", name, "--reason", "drill over", "--wait")
	return err
}

// each checks every instance of some services.
func (d *Demo) each(ctx context.Context, services []string, check func(fleet.Instance) error) error {
	checked := 0
	for _, i := range d.Fleet.Ask(ctx) {
		if !slices.ContainsFunc(services, func(s string) bool { return strings.HasPrefix(i.Name, s+"-") }) {
			continue
		}
		if !i.Up() {
			return fmt.Errorf("%s does not answer: %w", i.Name, i.Err)
		}
		if err := check(i); err != nil {
			return err
		}
		checked++
	}
	if want := len(services) * perService; checked != want {
		return fmt.Errorf("looked at %d instances, want %d", checked, want)
	}
	return nil
}

func connected(i fleet.Instance) error {
	if !i.Report.GetConnected() || len(i.Report.GetProblems()) > 0 {
		return fmt.Errorf("%s: connected %t, problems %v", i.Name, i.Report.GetConnected(), i.Report.GetProblems())
	}
	return nil
}

func (d *Demo) sameRevision(ctx context.Context) error {
	var first uint64
	return d.each(ctx, service.Names(), func(i fleet.Instance) error {
		if revision := i.Report.GetRevision(); first == 0 {
			first = revision
		} else if revision != first {
			return fmt.Errorf("%s obeys revision %d, another %d", i.Name, revision, first)
		}
		return nil
	})
}

// totals are the counts of everything that customers did so far.
type totals [3]load.Counts

func (d *Demo) totals() (t totals) {
	for _, op := range load.Ops() {
		t[op] = d.Customers.Read(op).Total
	}
	return t
}

// all waits until customers got only one outcome from a number of calls in a row.
func (d *Demo) all(ctx context.Context, want load.Outcome, ops ...load.Op) error {
	const inRow = 10
	since := d.totals()
	return poll(ctx, stepWithin, func(context.Context) error {
		var missing error
		for _, op := range ops {
			got := d.Customers.Read(op).Total.Minus(since[op])
			if got[want] != got.All() {
				since[op] = d.Customers.Read(op).Total
			}
			if got[want] != got.All() || got.All() < inRow {
				missing = errors.Join(missing, fmt.Errorf("%s: want %d calls in a row to be %s, the last were %v", op, inRow, want, got))
			}
		}
		return missing
	})
}

// nobodyFailed tells whether a customer got an error that nobody had decided on.
func (d *Demo) nobodyFailed(before totals) error {
	var errs []error
	for _, op := range load.Ops() {
		if got := d.Customers.Read(op).Total.Minus(before[op]); got[load.Failed] > 0 {
			errs = append(errs, fmt.Errorf("%s: %d of %d calls failed, the last with: %s", op, got[load.Failed], got.All(), d.Customers.LastError(op)))
		}
	}
	return errors.Join(errs...)
}
