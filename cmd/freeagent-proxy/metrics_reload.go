package main

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// reloads counts what became of reloads.
type reloads struct {
	outcomes   *prometheus.CounterVec
	at         prometheus.Gauge // when what holds was read
	successful prometheus.Gauge // whether the last one was
	refused    atomic.Bool      // the last one was
}

const (
	reloadApplied = "applied"
	reloadRefused = "refused"
)

func newReloads() *reloads {
	single := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: metrics, Name: name, Help: help})
	}
	r := &reloads{
		outcomes: counterVec("config_reloads_total",
			"Reloads of the configuration: applied, or refused because something was wrong with it.", "outcome"),
		at: single("config_last_reload_timestamp_seconds",
			"When the configuration that holds was read, in seconds since 1970: at the start, or by the last good reload."),
		successful: single("config_last_reload_successful",
			"1 unless the last reload was refused: the configuration that holds is not the one that is written."),
	}
	r.outcomes.WithLabelValues(reloadApplied)
	r.outcomes.WithLabelValues(reloadRefused)
	r.at.Set(seconds(time.Now()))
	r.successful.Set(1)
	return r
}

// done counts one reload.
func (r *reloads) done(applied bool) {
	r.successful.Set(truth(applied))
	r.refused.Store(!applied)
	if !applied {
		r.outcomes.WithLabelValues(reloadRefused).Inc()
		return
	}
	r.outcomes.WithLabelValues(reloadApplied).Inc()
	r.at.Set(seconds(time.Now()))
}

// Describe is that of prometheus.Collector.
func (r *reloads) Describe(all chan<- *prometheus.Desc) {
	r.outcomes.Describe(all)
	r.at.Describe(all)
	r.successful.Describe(all)
}

// Collect is that of prometheus.Collector.
func (r *reloads) Collect(all chan<- prometheus.Metric) {
	r.outcomes.Collect(all)
	r.at.Collect(all)
	r.successful.Collect(all)
}
