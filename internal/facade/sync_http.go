package facade

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	syncv1 "github.com/holdfast-dev/holdfast/proto/flagd/sync/v1"
)

// syncHTTP is SyncFlags on the HTTP port, in gRPC only, which is what providers
// speak. It is written by hand so that streams share the bytes of a document:
// what a library encodes anew for each stream takes a slow one 4 MiB.
type syncHTTP struct{ *service }

// ServeHTTP sends the document at once and after each change.
func (s syncHTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := r.Header.Get("Content-Type")
	if kind != "application/grpc" && kind != "application/grpc+proto" || r.ProtoMajor < 2 {
		http.Error(w, "SyncFlags is served in gRPC only", http.StatusUnsupportedMediaType)
		return
	}
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(http.StatusOK)
	err := control.Flush()
	if err == nil {
		err = s.serve(w, r, control)
	}
	code, message := codes.OK, ""
	if f := failureOf(err); f != nil {
		code, message = f.code, f.message
	}
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", strconv.Itoa(int(code)))
	w.Header().Set(http.TrailerPrefix+"Grpc-Message", percentEncoded(message))
}

func (s syncHTTP) serve(w io.Writer, r *http.Request, control *http.ResponseController) error {
	var req syncv1.SyncFlagsRequest
	if err := readFrame(r.Body, &req); err != nil {
		return err
	}
	text := req.GetSelector()
	if values := r.Header.Values(selectorHeader); len(values) > 0 {
		text = values[0]
	}
	sel, err := parseSelector(text)
	if err != nil {
		return failf(codes.InvalidArgument, "%v", err)
	}
	out := &eventWriter{w: w, control: control}
	return s.syncFlags(r.Context(), sel, func(document *shared) error {
		out.write(document.frame)
		return out.err
	})
}

// readFrame reads the one message of a request.
func readFrame(r io.Reader, m proto.Message) error {
	body, err := io.ReadAll(r)
	switch {
	case err != nil:
		return failf(codes.Canceled, "the request broke off: %v", err)
	case len(body) < frameHead:
		return failf(codes.Internal, "the request has no message")
	case body[0] != 0:
		return failf(codes.Unimplemented, "the request is compressed")
	}
	size := binary.BigEndian.Uint32(body[1:])
	switch {
	case size > maxRequestBytes:
		return failf(codes.ResourceExhausted, "the request has %d bytes; at most %d are allowed", size, maxRequestBytes)
	case int(size) != len(body)-frameHead:
		return failf(codes.Internal, "the request has %d bytes instead of %d", len(body)-frameHead, size)
	}
	if err := proto.Unmarshal(body[frameHead:], m); err != nil {
		return failf(codes.Internal, "read request: %v", err)
	}
	return nil
}

// percentEncoded writes a message as gRPC sends it.
func percentEncoded(message string) string {
	var b strings.Builder
	for i := range len(message) {
		if c := message[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
