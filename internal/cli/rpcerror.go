package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// errorDomain is the domain of the reasons that servers give.
const errorDomain = "holdfast"

// errorInfo returns the reason that a server gave, or nil where the error was
// made on the way.
func errorInfo(err error) *errdetails.ErrorInfo {
	st, ok := status.FromError(err)
	if !ok {
		return nil
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			return info
		}
	}
	return nil
}

// neverSent tells that a call failed before it left this process: no connection
// could be made. gRPC has no code of its own for it.
func neverSent(err error) bool {
	st, ok := status.FromError(err)
	if !ok || st.Code() != codes.Unavailable && st.Code() != codes.DeadlineExceeded || errorInfo(err) != nil {
		return false
	}
	for _, sign := range []string{"while dialing", "latest balancer error", "waiting for new LB policy update", "authentication handshake failed", "name resolver error", "produced zero addresses", "error reading server preface"} {
		if strings.Contains(st.Message(), sign) {
			return true
		}
	}
	return false
}

// statusExit maps what gRPC says to an exit code.
func statusExit(code codes.Code) int {
	switch code {
	case codes.InvalidArgument, codes.OutOfRange:
		return exitUsage
	case codes.NotFound:
		return exitNotFound
	case codes.Unauthenticated, codes.PermissionDenied:
		return exitAuth
	case codes.Aborted, codes.AlreadyExists:
		return exitConflict
	case codes.FailedPrecondition, codes.ResourceExhausted:
		return exitRefused
	case codes.Unavailable, codes.DeadlineExceeded:
		return exitUnavailable
	case codes.Canceled:
		return exitInterrupted
	default:
		return exitError
	}
}

// advice is the exit code for a reason, 0 where statusExit knows better, and what
// to do about it.
func advice(reason string) (code int, hint string) {
	switch reason {
	case "REVISION_MISMATCH":
		return exitConflict, "somebody changed it in between: look at it again, then repeat"
	case "REQUEST_TOO_OLD":
		return exitConflict, "the cluster no longer remembers requests that old: see `holdfast audit`, then run the command again"
	case "REQUEST_ID_REUSED":
		return exitConflict, ""
	case "FOREIGN_LINEAGE":
		return exitConflict, "another cluster answers at this address now: is the address right?"
	case "FORKED_EPOCH":
		return exitConflict, "two clusters descend from one: find out which of them is right"
	case "STATE_FULL", "TOO_MANY_RESOURCES", "TOO_MANY_NAMESPACES":
		return 0, "delete what is not needed any more; the limits are in docs/limits.md"
	case "TOO_MANY_OVERRIDES":
		return 0, "end overrides that are not needed: `holdfast override list`"
	case "NO_LEADER":
		return 0, "fewer than a majority of the servers can reach each other: see `holdfast cluster members`"
	case "FENCED":
		return 0, "this server's state differs from the others'; use another server and see its log"
	case "NOT_SERVING":
		return 0, "this server has not joined its cluster yet; see its log"
	case "PERMISSION_DENIED":
		return 0, "writes need a certificate with the operator role: `holdfast tls cert create NAME --role operator`"
	case "UNAUTHENTICATED":
		return 0, "give --tls-ca, --tls-cert and --tls-key, or a context that has them"
	case "BACKUP_INVALID":
		return 0, "the file is damaged or not a backup; take another one"
	default:
		return 0, ""
	}
}

// rpcFailure turns the error of a call into what was wrong, where and what to
// do. doing says what was tried, as in "set mode storefront".
func (a *app) rpcFailure(doing string, err error) error {
	var own *failure
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return own
	case errors.Is(err, context.Canceled):
		return errInterrupted
	}
	st, ok := status.FromError(err)
	if !ok {
		return fmt.Errorf("%s: %w", doing, err)
	}
	info := errorInfo(err)
	code, hint := advice(info.GetReason())
	f := &failure{code: cmp.Or(code, statusExit(st.Code())), cause: err}
	if info == nil && (st.Code() == codes.Unavailable || st.Code() == codes.DeadlineExceeded) {
		return a.unreachable(doing, st, f)
	}
	f.what = fmt.Sprintf("cannot %s: %s", doing, oneLine(st.Message()))
	if info != nil {
		f.what += " (" + info.GetReason() + ")"
	}
	violations(f, st)
	if hint != "" {
		f.addHint("%s", hint)
	}
	if st.Code() == codes.Unimplemented {
		f.addHint("the server does not know this call; compare `holdfast version`")
	}
	return f
}

// violations adds the fields and preconditions that a server named.
func violations(f *failure, st *status.Status) {
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				f.addDetail("%s", specViolation(v.GetField(), v.GetDescription()))
			}
		case *errdetails.PreconditionFailure:
			for _, v := range d.GetViolations() {
				f.addDetail("%s: %s", v.GetSubject(), v.GetDescription())
			}
		}
	}
}

// unreachable says that no server answered.
func (a *app) unreachable(doing string, st *status.Status, f *failure) error {
	where := strings.Join(a.remote.addrs, ", ")
	message := st.Message()
	f.what = fmt.Sprintf("cannot %s: no server at %s", doing, where)
	if st.Code() == codes.DeadlineExceeded && !strings.Contains(message, "while dialing") {
		f.what = fmt.Sprintf("cannot %s: no answer from %s in time", doing, where)
	}
	f.addDetail("%s", dialReason(message))
	switch {
	case strings.Contains(message, "does not look like a TLS handshake"):
		f.addHint("the server speaks plaintext: leave the TLS flags out, or fix the context")
	case strings.Contains(message, "error reading server preface"), strings.Contains(message, "connection reset"):
		f.addHint("is this the API port (7400), and does the server want TLS? Give --tls-ca, --tls-cert and --tls-key")
	case strings.Contains(message, "certificate"), strings.Contains(message, "tls:"):
		f.code = exitAuth
		f.addHint("the certificates do not fit: both sides need one of the same CA, this one with the operator role")
	default:
		f.addHint("is it running? Try `controlplane --dev`, or point --addr, HOLDFAST_ADDR or a context at your servers")
	}
	return f
}

// dialReason cuts gRPC's wrapping off the reason why a connection failed.
func dialReason(message string) string {
	for _, prefix := range []string{"transport: Error while dialing: ", "error reading server preface: ", "connection error: desc = "} {
		if i := strings.LastIndex(message, prefix); i >= 0 {
			message = message[i+len(prefix):]
			break
		}
	}
	return oneLine(strings.Trim(message, `"`))
}

// briefly is one line about an error for a notice.
func briefly(err error) string {
	st, ok := status.FromError(err)
	if !ok {
		return oneLine(err.Error())
	}
	if info := errorInfo(err); info != nil {
		return oneLine(st.Message()) + " (" + info.GetReason() + ")"
	}
	return dialReason(st.Message())
}
