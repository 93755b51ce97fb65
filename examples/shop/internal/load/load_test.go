package load

import (
	"errors"
	"math"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func TestMeterLooksBackOnlySoFar(t *testing.T) {
	var m meter
	for i := range 100 {
		m.add(time.Duration(i)*100*time.Millisecond, OK, time.Millisecond)
	}
	if r := m.read(10 * time.Second); r.Recent[OK] != 40 || r.Total[OK] != 100 || r.PerSecond != 10 {
		t.Errorf("after 10 s at 10/s: %+v", r)
	}
	// The slice that has just begun does not count yet, and what came long ago no more.
	m.add(10*time.Second, Failed, time.Second)
	if r := m.read(10*time.Second + 500*time.Millisecond); r.Recent[Failed] != 0 || r.Total[Failed] != 1 {
		t.Errorf("a slice that goes on: %+v", r)
	}
	if r := m.read(20 * time.Second); r.Recent.All() != 0 || r.PerSecond != 0 || r.P99 != 0 {
		t.Errorf("10 s later: %+v", r)
	}
	if r := new(meter).read(0); r != (Reading{}) {
		t.Errorf("nothing: %+v", r)
	}
}

func TestMeterLatencies(t *testing.T) {
	var m meter
	for range 98 {
		m.add(0, OK, 3*time.Millisecond)
	}
	m.add(0, OK, 2*time.Second)
	m.add(0, OK, time.Hour)
	r := m.read(time.Second)
	if low, high := 3*time.Millisecond, 3600*time.Microsecond; r.P50 < low || r.P50 > high {
		t.Errorf("p50 is %v, want up to a fifth above %v", r.P50, low)
	}
	if low, high := 2*time.Second, 2400*time.Millisecond; r.P99 < low || r.P99 > high {
		t.Errorf("p99 is %v, want up to a fifth above %v", r.P99, low)
	}
	for took := time.Microsecond; took < time.Minute; took = took*11/10 + 1 {
		if b := bucketOf(took); b < buckets-1 && float64(took) > math.Max(1, math.Pow(growth, float64(b)))*float64(firstBucket)*1.0000001 {
			t.Fatalf("%v is in bucket %d, which ends below", took, b)
		}
	}
}

func TestOutcomes(t *testing.T) {
	told := func(domain, reason string) error {
		s, err := status.New(codes.Unavailable, "no").WithDetails(&errdetails.ErrorInfo{Domain: domain, Reason: reason})
		if err != nil {
			t.Fatal(err)
		}
		return s.Err()
	}
	for _, c := range []struct {
		name   string
		header metadata.MD
		err    error
		want   Outcome
	}{
		{"plain", nil, nil, OK},
		{"marked", metadata.Pairs("holdfast-degraded", "fallback"), nil, Degraded},
		{"by a mode", nil, told("holdfast", "DEGRADED"), Refused},
		{"shed", nil, told("holdfast", "SHED"), Refused},
		{"breaker", nil, told("holdfast", "BREAKER_OPEN"), Failed},
		{"somebody else's reason", nil, told("example.com", "DEGRADED"), Failed},
		{"anything", nil, errors.New("no"), Failed},
	} {
		if got := outcomeOf(c.header, c.err); got != c.want {
			t.Errorf("%s: outcome %s, want %s", c.name, got, c.want)
		}
	}
}

func TestCounts(t *testing.T) {
	c := Counts{6, 2, 1, 1}
	if c.All() != 10 || c.Share(OK) != 0.6 || c.Minus(Counts{1, 1, 1, 1}) != (Counts{5, 1, 0, 0}) || (Counts{}).Share(OK) != 0 {
		t.Errorf("counts are wrong: %v", c)
	}
	if got := (Counts{OK: 3, Failed: 1}).String() + "; " + (Counts{}).String(); got != "3 ok, 1 failed; none" {
		t.Error(got)
	}
}
