package demo

import (
	"fmt"
	"strings"
)

// Hints says what to try, in another terminal.
func (d *Demo) Hints() string {
	control := ""
	if d.options.PortBase != DefaultBase {
		control = fmt.Sprintf(" SHOP_DEMO=%s", ControlAddr(d.ports.base))
	}
	return fmt.Sprintf(`
In another terminal:

  export PATH=%s:$PATH HOLDFAST_ADDR=%s%s

Break payments; their breakers open, and orders are accepted as "payment pending":
  holdfast flag set payments-broken --variant on --for 10m --reason drill
  holdfast flag clear payments-broken --reason "drill over"

Freeze the shop; the command returns when all instances obey:
  holdfast mode set storefront read-only --for 10m --reason drill --wait
  holdfast mode clear storefront --reason "drill over"

Exhaust orders; browsing goes on, since only 4 calls at a time may wait for an order.
The second line shows what that is good for: it removes the bulkhead.
  holdfast flag set orders-slow --variant on --for 10m --reason drill
  holdfast mode set bulkheads removed --for 1m --reason "what if"
  holdfast flag clear orders-slow --reason "drill over"

Lose the control plane; the shop goes on, also an instance that starts meanwhile:
  shop kill controlplane
  shop kill payments-1 && shop start payments-1
  shop start controlplane

Who obeys what, and why:
  holdfast instances
  holdfast mode list
  holdfast audit

Data and logs are in %s. Ctrl-C ends everything.
`, d.options.Programs, strings.Join(d.ServerAddrs(), ","), control, d.dir)
}
