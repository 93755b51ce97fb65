package facade

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
)

// The paths of OFREP, and of the stream of events, which OFREP leaves open.
const (
	pathEvaluate = "/ofrep/v1/evaluate/flags"
	pathEvents   = "/ofrep/v1/events"
)

// ofrep answers OFREP.
type ofrep struct {
	*service
	access access
}

func (o *ofrep) routes(mux *http.ServeMux) {
	mux.HandleFunc("POST "+pathEvaluate+"/{key}", o.single)
	mux.HandleFunc("POST "+pathEvaluate, o.bulk)
	mux.HandleFunc("POST "+pathEvaluate+"/{$}", o.bulk)
	mux.HandleFunc("GET "+pathEvents, o.events)
}

// question reads a request. What is wrong with it is answered, and nil returned.
func (o *ofrep) question(w http.ResponseWriter, r *http.Request) *question {
	key := r.PathValue("key")
	if err := o.serving(); err != nil {
		unavailable(w, err)
		return nil
	}
	sel, err := parseSelector(r.Header.Get(selectorHeader))
	if err != nil {
		writeJSON(w, http.StatusBadRequest, faultBody(key, "GENERAL", err.Error()))
		return nil
	}
	body, err := io.ReadAll(r.Body) // it is in memory already, see bounded
	if err == nil && len(body) > maxRequestBytes {
		writeJSON(w, http.StatusRequestEntityTooLarge,
			faultBody(key, "INVALID_CONTEXT", fmt.Sprintf("the body has more than %d bytes", maxRequestBytes)))
		return nil
	}
	attributes, err := attributesOfBody(body)
	if err != nil {
		writeJSON(w, http.StatusBadRequest, faultBody(key, "INVALID_CONTEXT", err.Error()))
		return nil
	}
	if want, ok := parseVersion(r.URL.Query().Get("flagConfigEtag")); ok {
		o.await(r.Context(), sel.namespace, want)
	}
	return o.service.question(sel, attributes)
}

// single evaluates one flag.
func (o *ofrep) single(w http.ResponseWriter, r *http.Request) {
	q := o.question(w, r)
	if q == nil {
		return
	}
	a := q.ask(r.PathValue("key"))
	o.metrics.evaluated(&a)
	writeJSON(w, answerStatus(&a), appendAnswer(nil, &a))
}

// bulk evaluates every flag. The tag is over the answer itself, and so over all
// that it depends on: flags, context and time.
func (o *ofrep) bulk(w http.ResponseWriter, r *http.Request) {
	q := o.question(w, r)
	if q == nil {
		return
	}
	answers := []byte{'['}
	for a := range q.all(r.Context()) {
		o.metrics.evaluated(&a)
		if len(answers) > 1 {
			answers = append(answers, ',')
		}
		answers = appendAnswer(answers, &a)
	}
	if r.Context().Err() != nil {
		return // nobody is there to read
	}
	body := bulkBody(append(answers, ']'), q.selector.metadata())
	sum := sha256.Sum256(body.b)
	tag := `"` + hex.EncodeToString(sum[:16]) + `"`
	w.Header().Set("ETag", tag)
	w.Header().Set("Cache-Control", "private, no-cache")
	if matches(r.Header.Values("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body.raw("eventStreams", eventStreams(q.selector, o.access.ticket(q.selector)))
	writeJSON(w, http.StatusOK, body.end())
}

// events is a stream of server-sent events: it tells that answers may have
// changed, not what. A client that comes back with the id of what it heard last,
// and has missed nothing, is told nothing; any other one is told at once.
func (o *ofrep) events(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet { // the pattern means HEAD as well
		w.Header().Set("Allow", http.MethodGet)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	sel, err := parseSelector(r.URL.Query().Get("selector"))
	if err != nil {
		writeJSON(w, http.StatusBadRequest, faultBody("", "GENERAL", err.Error()))
		return
	}
	f, err := o.follow(r.Context(), sel, "sse")
	if err != nil {
		unavailable(w, err)
		return
	}
	defer f.done()
	out := &eventWriter{w: w, control: http.NewResponseController(w)}
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // proxies must not hold events back
	w.WriteHeader(http.StatusOK)
	seen := f.now()
	first := fmt.Appendf(nil, ": holdfast\nid: %s\n\n", seen.version)
	if r.Header.Get("Last-Event-ID") != seen.version.String() {
		first = refetch(seen.version)
	}
	out.write(first)
	alive := time.NewTicker(o.keepAlive)
	defer alive.Stop()
	for out.err == nil {
		select {
		case <-f.ctx.Done():
			return
		case <-alive.C:
			out.write([]byte(": keep-alive\n\n"))
		case <-seen.over:
			if o.serving() != nil {
				return
			}
			seen = f.now()
			out.write(refetch(seen.version))
		}
	}
}

// eventWriter writes events until one cannot be written.
type eventWriter struct {
	w       io.Writer
	control *http.ResponseController
	err     error
}

func (e *eventWriter) write(b []byte) {
	if _, e.err = e.w.Write(b); e.err == nil {
		e.err = e.control.Flush()
	}
}

// unavailable answers what only another server, or a later attempt, can mend.
func unavailable(w http.ResponseWriter, err error) {
	f := failureOf(err)
	status := http.StatusServiceUnavailable
	if f.code != codes.Unavailable && f.code != codes.ResourceExhausted {
		status = http.StatusInternalServerError
	}
	w.Header().Set("Retry-After", "1")
	writeJSON(w, status, faultBody("", "", f.message))
}

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.Copy(w, bytes.NewReader(body)) // the client is gone if it fails
}
