// Package metrics shows what a client counts to Prometheus:
//
//	prometheus.MustRegister(metrics.NewCollector(cp))
//
// Nothing is counted for it: figures are read when they are asked for. docs/sdk-metrics.md
// lists them.
package metrics
