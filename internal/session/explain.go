package session

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/mirror"
)

// What servers say of a refusal (docs/errors.md).
const (
	serverDomain   = "holdfast"
	foreignLineage = "FOREIGN_LINEAGE"
	metaEpoch      = "epoch"
)

// explained is an error in words for whoever runs the instance.
type explained struct {
	text  string
	cause error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.cause }

// explain says what the end of a stream means. The cause, and its status code, stay.
func (st *stream) explain(err error) error {
	if err == nil {
		return nil
	}
	info := infoOf(err)
	answer := status.Convert(err)
	switch {
	case errors.Is(err, mirror.ErrForeign):
		return st.session.foreign(st.told.HasLineage(), st.told.String())
	case info.GetReason() == foreignLineage:
		epoch, told := info.GetMetadata()[metaEpoch]
		return st.session.foreign(told, epoch)
	case errors.Is(err, mirror.ErrMalformed): // says so
		return err
	case !fromServer(err) && hopeless(err):
		return fmt.Errorf("the server's answer cannot be obeyed: %w", err)
	case !fromServer(err):
		return err
	case answer.Code() == codes.AlreadyExists:
		return &explained{fmt.Sprintf("the server refuses this instance, whose id is %q: %s", st.session.config.Identity.ID, answer.Message()), err}
	case hopeless(err):
		return &explained{fmt.Sprintf("the server refuses this instance: %s", answer.Message()), err}
	case st.answered.IsZero() && answer.Code() == codes.Unavailable && brokenOff(answer.Message()):
		return fmt.Errorf("%w; does the server want TLS, or a certificate?", err)
	default:
		return err
	}
}

// foreign tells that the servers belong to another cluster than what is known here.
func (s *Session) foreign(told bool, epoch string) error {
	other := "another cluster"
	if told {
		other += " (" + epoch + ")"
	}
	held := s.Mirror()
	known, keeps := "view", "that view"
	if !held.Position().Set() {
		known, keeps = "mark", "the defaults of the code"
	}
	remedy := "restart"
	if s.disk != nil {
		remedy = fmt.Sprintf("remove %s and .mark and restart", s.disk.cachePath())
	}
	return &explained{fmt.Sprintf("the servers belong to %s than the %s of this instance (%s); it goes on with %s. To follow them, %s",
		other, known, held.Floor().Epoch, keeps, remedy), mirror.ErrForeign}
}

// fromServer tells whether gRPC gave an error: it is of the server, or of the
// connection.
func fromServer(err error) bool {
	_, ok := status.FromError(err)
	return ok
}

// brokenOff tells whether a connection ended as it does when one side speaks TLS and
// the other does not, or wants a certificate.
func brokenOff(message string) bool {
	for _, sign := range []string{"EOF", "broken pipe", "error reading server preface"} {
		if strings.Contains(message, sign) {
			return true
		}
	}
	return false
}

// infoOf returns what Holdfast says of an error; nil if it says nothing.
func infoOf(err error) *errdetails.ErrorInfo {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == serverDomain {
			return info
		}
	}
	return nil
}
