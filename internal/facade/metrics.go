package facade

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-dev/holdfast/internal/flags"
)

// metrics are the figures of the façades. All labels are from fixed lists.
type metrics struct {
	requests    *prometheus.CounterVec
	streams     *prometheus.GaugeVec
	evaluations *prometheus.CounterVec
	encoded     prometheus.Counter
	refused     prometheus.Counter

	// Of evaluations, by reason and by error code, so that a call does not look
	// them up.
	byReason map[flags.Reason]prometheus.Counter
	byCode   map[flags.ErrorCode]prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	if r == nil {
		r = prometheus.NewRegistry()
	}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_flags_requests_total",
			Help: "Finished requests to the HTTP port of flags by route and HTTP status.",
		}, []string{"route", "status"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "holdfast_flags_streams",
			Help: "Open streams of flag clients by kind: sync, events, sse.",
		}, []string{"kind"}),
		evaluations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_flags_evaluations_total",
			Help: "Flags evaluated for clients by reason, or by error code.",
		}, []string{"reason"}),
		encoded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "holdfast_flags_documents_encoded_total",
			Help: "Documents of definitions that were encoded; streams share them.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "holdfast_flags_documents_refused_total",
			Help: "Requests and streams that were refused because their document is too large.",
		}),
		byReason: make(map[flags.Reason]prometheus.Counter),
		byCode:   make(map[flags.ErrorCode]prometheus.Counter),
	}
	r.MustRegister(m.requests, m.streams, m.evaluations, m.encoded, m.refused)
	for _, reason := range []flags.Reason{flags.Static, flags.Default, flags.TargetingMatch, flags.Disabled} {
		m.byReason[reason] = m.evaluations.WithLabelValues(reason.String())
	}
	for _, code := range []flags.ErrorCode{flags.FlagNotFound, flags.ParseError, flags.TypeMismatch, flags.General} {
		m.byCode[code] = m.evaluations.WithLabelValues(code.String())
	}
	return m
}

// evaluated counts an answer.
func (m *metrics) evaluated(a *answer) {
	counter := m.byReason[a.reason]
	if a.reason == flags.Error {
		counter = m.byCode[a.code]
	}
	if counter != nil {
		counter.Inc()
	}
}
