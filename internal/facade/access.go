package facade

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
)

// access says who may use the HTTP port.
type access struct {
	// tokens are hashed, so that comparing them tells nothing, not even a length.
	tokens  [][sha256.Size]byte
	origins []string
}

func newAccess(tokens, origins []string) access {
	a := access{origins: origins}
	for _, t := range tokens {
		a.tokens = append(a.tokens, sha256.Sum256([]byte(t)))
	}
	return a
}

// allows tells whether a request has a token, or none is needed. A stream of
// events has a ticket instead, as browsers send no headers with it.
func (a access) allows(r *http.Request) bool {
	if len(a.tokens) == 0 {
		return true
	}
	given := 0
	// Both, as one of them may be a proxy's own.
	for _, token := range []string{bearerOf(r.Header), r.Header.Get("X-API-Key")} {
		sum := sha256.Sum256([]byte(token))
		for _, t := range a.tokens {
			given |= subtle.ConstantTimeCompare(sum[:], t[:])
		}
	}
	if given == 1 {
		return true
	}
	if r.URL.Path != pathEvents {
		return false
	}
	query := r.URL.Query()
	sel, err := parseSelector(query.Get("selector"))
	if err != nil {
		return false
	}
	for _, t := range a.tokens {
		given |= subtle.ConstantTimeCompare([]byte(query.Get("ticket")), []byte(ticketOf(t, sel)))
	}
	return given == 1
}

func bearerOf(h http.Header) string {
	if scheme, token, ok := strings.Cut(h.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return ""
}

// ticket opens the stream of events of a selector and nothing else; empty where
// no token is needed. It is the same on every server, as long as the token is.
func (a access) ticket(s selector) string {
	if len(a.tokens) == 0 {
		return ""
	}
	return ticketOf(a.tokens[0], s)
}

func ticketOf(token [sha256.Size]byte, s selector) string {
	mac := hmac.New(sha256.New, token[:])
	_, _ = mac.Write([]byte("holdfast/events/1\x00" + s.String()))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// What browsers may send, read, and for how long they may take that for granted.
const (
	corsMethods = "GET, POST, OPTIONS"
	corsRequest = "Authorization, Cache-Control, Connect-Accept-Encoding, Connect-Content-Encoding, Connect-Protocol-Version, Connect-Timeout-Ms, " +
		"Content-Encoding, Content-Type, Flagd-Selector, Grpc-Timeout, If-None-Match, Last-Event-ID, X-API-Key, X-Grpc-Web, X-User-Agent"
	corsResponse = "Connect-Content-Encoding, Content-Encoding, ETag, Grpc-Encoding, Grpc-Message, Grpc-Status, Grpc-Status-Details-Bin, Retry-After"
	corsMaxAge   = "7200"
)

// cors lets pages of the allowed origins read answers, and answers their
// questions beforehand, which carry no token.
func (a access) cors(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header, origin := w.Header(), r.Header.Get("Origin")
		all := slices.Contains(a.origins, "*")
		if len(a.origins) > 0 && !all {
			header.Add("Vary", "Origin")
		}
		allowed := origin != "" && (all || slices.Contains(a.origins, origin))
		if allowed {
			if all {
				origin = "*"
			}
			header.Set("Access-Control-Allow-Origin", origin)
			header.Set("Access-Control-Expose-Headers", corsResponse)
		}
		if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
			next.ServeHTTP(w, r)
			return
		}
		if allowed {
			header.Set("Access-Control-Allow-Methods", corsMethods)
			header.Set("Access-Control-Allow-Headers", corsRequest)
			header.Set("Access-Control-Max-Age", corsMaxAge)
		}
		w.WriteHeader(http.StatusNoContent)
	})
}
