package api

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// metrics are the figures of the API. Method names come from the rules table,
// because gRPC calls no interceptor for others, so the labels are bounded.
type metrics struct {
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
	watches   prometheus.Gauge
	sessions  prometheus.Gauge
	acks      prometheus.Counter
	obeyed    prometheus.Histogram
	messages  *prometheus.CounterVec
	encodes   *prometheus.CounterVec
	forwards  *prometheus.CounterVec

	fleetWatches  prometheus.Gauge
	participants  *prometheus.GaugeVec
	evidence      *prometheus.CounterVec
	verifications *prometheus.CounterVec
}

// newMetrics registers the metrics. On a registerer that has them already, the
// present ones are used.
func newMetrics(r prometheus.Registerer) *metrics {
	if r == nil {
		r = prometheus.NewRegistry()
	}
	return &metrics{
		requests: register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_api_requests_total",
			Help: "Finished calls by method and status code.",
		}, []string{"method", "code"})),
		durations: register(r, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "holdfast_api_request_duration_seconds",
			Help:    "Duration of unary calls by method.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}, []string{"method"})),
		watches: register(r, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "holdfast_api_watches",
			Help: "Open watches.",
		})),
		sessions: register(r, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "holdfast_api_sessions",
			Help: "Open sessions of instances.",
		})),
		acks: register(r, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "holdfast_api_session_acks_total",
			Help: "Acknowledgements received from instances.",
		})),
		obeyed: register(r, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "holdfast_api_session_ack_seconds",
			Help:    "Time from sending a change to an instance until it has acknowledged that it obeys.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		})),
		messages: register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_api_watch_messages_total",
			Help: "Messages handed to watches and sessions by kind: snapshot, delta, progress, and to sessions also gossip (settings) and evidence.",
		}, []string{"kind"})),
		encodes: register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_api_watch_encodes_total",
			Help: "Chunks of snapshots and deltas that were encoded; watches and sessions share the bytes.",
		}, []string{"kind"})),
		forwards: register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_api_leader_attempts_total",
			Help: "Attempts to act at the leader by place (local, remote, none) and result (ok, definite, unknown).",
		}, []string{"place", "result"})),
		fleetWatches: register(r, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "holdfast_api_fleet_watches",
			Help: "Open watches of fleets.",
		})),
		participants: register(r, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "holdfast_api_gossip_sessions",
			Help: "Open sessions of instances that take part in gossip, by the mode that is granted: off, relayed, direct.",
		}, []string{"mode"})),
		evidence: register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_api_evidence_total",
			Help: "Records that relayed instances handed in, by result: taken, dropped (too fast, too large, not granted), refused (not their own, forged, expired).",
		}, []string{"result"})),
		verifications: register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_api_gossip_verifications_total",
			Help: "Verifications of the gossip addresses of instances by result: ok, failed.",
		}, []string{"result"})),
	}
}

// participates counts a session under the mode that it is granted; an empty one is
// none.
func (m *metrics) participates(was, is string) {
	if was != "" {
		m.participants.WithLabelValues(was).Dec()
	}
	if is != "" {
		m.participants.WithLabelValues(is).Inc()
	}
}

// verified counts a verification.
func (m *metrics) verified(ok bool) {
	result := "ok"
	if !ok {
		result = "failed"
	}
	m.verifications.WithLabelValues(result).Inc()
}

// registerBehind registers a gauge that is counted when it is asked for.
func registerBehind(r prometheus.Registerer, count func() int) {
	if r == nil {
		return
	}
	register(r, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "holdfast_api_sessions_behind",
		Help: "Open sessions of instances that have not acknowledged what their namespace holds at this server.",
	}, func() float64 { return float64(count()) }))
}

// register returns the collector, or the equal one that is registered already.
// A collision with another one is a programming error and panics, as in
// prometheus.MustRegister.
func register[C prometheus.Collector](r prometheus.Registerer, c C) C {
	err := r.Register(c)
	if err == nil {
		return c
	}
	if present, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if same, ok := present.ExistingCollector.(C); ok {
			return same
		}
	}
	panic(err)
}

func (m *metrics) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	began := time.Now()
	resp, err := handler(ctx, req)
	method := strings.TrimPrefix(info.FullMethod, "/")
	m.requests.WithLabelValues(method, status.Code(err).String()).Inc()
	m.durations.WithLabelValues(method).Observe(time.Since(began).Seconds())
	return resp, err
}

func (m *metrics) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	err := handler(srv, stream)
	m.requests.WithLabelValues(strings.TrimPrefix(info.FullMethod, "/"), status.Code(err).String()).Inc()
	return err
}
