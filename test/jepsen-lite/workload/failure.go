package workload

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// failure is what an error of the API says.
type failure struct {
	code string // the stable reason, or gRPC's code
	// definite tells that this attempt had no effect.
	definite bool
	// final tells that a repetition would get the same answer.
	final bool
	// silent tells that the server did not answer in time.
	silent   bool
	revision uint64 // of the state that refused; 0 if not told
}

func explain(err error) failure {
	if errors.Is(err, errClosed) {
		return failure{code: "STOPPED", definite: true, final: true}
	}
	st := status.Convert(err)
	f := failure{code: st.Code().String(), silent: st.Code() == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded)}
	for _, detail := range st.Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if !ok || info.GetDomain() != "holdfast" {
			continue
		}
		f.code, f.definite = info.GetReason(), info.GetMetadata()["outcome"] == "definite"
		f.final = f.definite && st.Code() != codes.Unavailable && st.Code() != codes.ResourceExhausted &&
			st.Code() != codes.DeadlineExceeded && st.Code() != codes.Canceled && st.Code() != codes.Aborted
		f.revision, _ = strconv.ParseUint(info.GetMetadata()["revision"], 10, 64)
		return f
	}
	// gRPC says so where it never had a connection to send the request on.
	if st.Code() == codes.Unavailable && strings.Contains(st.Message(), "Error while dialing") {
		f.code, f.definite = "NO_CONNECTION", true
	}
	return f
}

// decided tells whether the failure is the state's own answer to a request, which
// every attempt gets, whichever was applied first.
func (f *failure) decided() bool {
	return f.final && (f.code == history.CodeMismatch || f.code == history.CodeNotFound)
}
