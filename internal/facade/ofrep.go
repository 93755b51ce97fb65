package facade

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/holdfast-dev/holdfast/internal/flags"
)

// The bodies of OFREP, made of what is known. No clock, no network.

// object builds a JSON object. Its keys are plain words.
type object struct{ b []byte }

func (o *object) key(key string) {
	if len(o.b) == 0 {
		o.b = append(o.b, '{')
	} else {
		o.b = append(o.b, ',')
	}
	o.b = append(strconv.AppendQuote(o.b, key), ':')
}

func (o *object) text(key, value string) {
	o.key(key)
	o.b = flags.String(value).AppendJSON(o.b)
}

func (o *object) raw(key string, json []byte) {
	o.key(key)
	o.b = append(o.b, json...)
}

func (o *object) metadata(m []flags.Attribute) {
	if len(m) > 0 {
		o.raw("metadata", flags.Object(m...).AppendJSON(nil))
	}
}

func (o *object) end() []byte {
	if len(o.b) == 0 {
		o.b = append(o.b, '{')
	}
	return append(o.b, '}')
}

// appendAnswer appends what OFREP says of one flag, be it a success or a failure.
func appendAnswer(b []byte, a *answer) []byte {
	var o object
	o.text("key", a.key)
	if a.reason == flags.Error {
		o.text("errorCode", a.code.String())
		o.text("errorDetails", a.details())
		o.metadata(a.metadata)
		return append(b, o.end()...)
	}
	o.text("reason", a.reason.String())
	if a.variant != nil {
		o.text("variant", a.variant.Name)
		o.raw("value", a.variant.JSON)
	}
	o.metadata(a.metadata)
	return append(b, o.end()...)
}

// answerStatus is the HTTP status of the answer for one flag.
func answerStatus(a *answer) int {
	switch {
	case a.reason != flags.Error:
		return http.StatusOK
	case a.code == flags.FlagNotFound:
		return http.StatusNotFound
	default:
		return http.StatusBadRequest
	}
}

// faultBody is what OFREP says of a request that cannot be answered: for one flag
// if it has a key.
func faultBody(key, code, details string) []byte {
	var o object
	if key != "" {
		o.text("key", key)
	}
	if code != "" {
		o.text("errorCode", code)
	}
	o.text("errorDetails", details)
	return o.end()
}

// bulkBody is the answer for many flags: a JSON object up to its last member, as
// the streams, which do not belong to the content, come after it.
func bulkBody(answers []byte, metadata []flags.Attribute) object {
	var o object
	o.raw("flags", answers)
	o.metadata(metadata)
	return o
}

// eventStreams is where a client hears of changes.
func eventStreams(s selector, ticket string) []byte {
	query := url.Values{}
	if text := s.String(); text != "" {
		query.Set("selector", text)
	}
	if ticket != "" {
		query.Set("ticket", ticket)
	}
	uri := pathEvents
	if len(query) > 0 {
		uri += "?" + query.Encode()
	}
	var endpoint, entry object
	endpoint.text("requestUri", uri)
	entry.text("type", "sse")
	entry.raw("endpoint", endpoint.end())
	entry.raw("inactivityDelaySec", strconv.AppendInt(nil, int64(inactivityDelay.Seconds()), 10))
	return append(append([]byte{'['}, entry.end()...), ']')
}

// refetch is the event that has clients ask again, and say for which version.
func refetch(v version) []byte {
	return fmt.Appendf(nil, "id: %s\nevent: message\ndata: {\"type\":\"refetchEvaluation\",\"etag\":\"%s\"}\n\n", v, v)
}

// matches tells whether a header If-None-Match holds the tag.
func matches(header []string, tag string) bool {
	for _, line := range header {
		for candidate := range strings.SplitSeq(line, ",") {
			candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
			if candidate == tag || candidate == "*" {
				return true
			}
		}
	}
	return false
}
