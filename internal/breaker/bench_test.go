package breaker

import (
	"testing"
	"time"
	"unsafe"
)

// A larger one than four words travels through memory, at twice the price of the rest.
var _ [4*8 - unsafe.Sizeof(Admission{})]byte

func benchSettings() Settings {
	s := defaults()
	s.SlowAfter = time.Second
	return s
}

func BenchmarkAdmitRecord(b *testing.B) {
	br := New(0, benchSettings(), 1)
	now := int64(time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		a := br.Admit(now)
		br.Record(now, a.Ticket, Success, time.Millisecond)
	}
}

func BenchmarkAdmitRecordParallel(b *testing.B) {
	br := New(0, benchSettings(), 1)
	now := int64(time.Hour)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			a := br.Admit(now)
			br.Record(now, a.Ticket, Success, time.Millisecond)
		}
	})
}

// BenchmarkAdmitRecordFailure is what a failure costs that opens nothing.
func BenchmarkAdmitRecordFailure(b *testing.B) {
	s := benchSettings()
	s.FailureThreshold, s.VolumeThreshold = 0, 1<<40
	br := New(0, s, 1)
	now := int64(time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		a := br.Admit(now)
		br.Record(now, a.Ticket, Failure, time.Millisecond)
	}
}

func BenchmarkReject(b *testing.B) {
	br := New(0, benchSettings(), 1)
	br.OpenFor(0, br.Admit(0).Ticket, time.Minute)
	b.ReportAllocs()
	for b.Loop() {
		br.Admit(1)
	}
}

func BenchmarkRejectParallel(b *testing.B) {
	br := New(0, benchSettings(), 1)
	br.OpenFor(0, br.Admit(0).Ticket, time.Minute)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			br.Admit(1)
		}
	})
}

func BenchmarkRampReject(b *testing.B) {
	s := defaults()
	s.Ramp, s.RampStep, s.SuccessThreshold = []float64{0.01}, time.Hour, 1
	br := New(0, s, 1)
	br.Force(0, true)
	br.Release(0)
	br.Record(0, br.Admit(0).Ticket, Success, 0)
	b.ReportAllocs()
	for b.Loop() {
		br.Admit(1)
	}
}
