package breaker

import (
	"encoding/binary"
	"testing"
	"time"
)

// FuzzOperations does whatever the data says, with any settings and a clock that
// goes anywhere, and then behaves well: however it came to be where it is, it is
// closed again after some time.
func FuzzOperations(f *testing.F) {
	f.Add([]byte{}, int64(0), uint64(0))
	f.Add([]byte("\x01\x01\x01\x01\x01\x01\x07\xff\x10\x09\x00"), int64(time.Hour), uint64(1<<40))
	f.Add([]byte("\x01\x15\x01\x15\xf3\x08\x01\x05\x03\x01\x05\xa4\x04\x84\x0e\x14"), int64(time.Hour), uint64(3<<18|1<<24|2))
	f.Add([]byte("\x01\x11\x21\x31\x08\x80\x01\x02\x03\x04\x0a\x0b\x0c\x0d\x0e\x0f"), int64(1)<<60, uint64(3))
	f.Fuzz(func(t *testing.T, ops []byte, start int64, shape uint64) {
		const far = 1 << 60
		now := start & (far - 1)
		settings := func(shape uint64) Settings {
			d := func(bit int) time.Duration { return time.Duration(shape >> bit % 64 * uint64(time.Second) / 8) }
			return Settings{
				FailureThreshold: int(shape % 5), FailureWindow: int(shape >> 3 % 70), FailureRatio: float64(shape>>8%4) / 3,
				SlowRatio: float64(shape>>10%4) / 3, SlowAfter: d(12), VolumeThreshold: int(shape >> 16 % 8), Window: d(18),
				Timeout: d(24), MaxTimeout: d(27), Multiplier: float64(shape >> 32 % 5), Jitter: float64(shape>>36%3) / 2,
				Probes: int(shape >> 40 % 4), ProbeTimeout: d(44), SuccessThreshold: int(shape >> 50 % 4),
				Ramp: []float64{0, 0.1, 0.5, 1}[:shape>>54%5], RampStep: d(56),
				VetoSuccesses: int(shape >> 6 % 5), VetoWindow: d(15), Canary: float64(shape>>21%4) / 3,
			}
		}
		b := New(now, settings(shape), shape)
		tickets := []Ticket{{}}
		for i, op := range ops {
			arg := int(op >> 4)
			ticket := tickets[len(tickets)-1-arg%len(tickets)]
			switch op % 16 {
			default:
				if a := b.Admit(now); a.Admitted {
					tickets = append(tickets, a.Ticket)
				} else if a.RetryAfter < 0 || a.Ticket != (Ticket{}) && !a.Hearsay() || a.Hearsay() != (b.round.Load().state == Hearsay) {
					t.Fatalf("%+v", a)
				}
			case 3:
				if arg < 4 {
					b.Dismiss(now)
				} else if e := b.Heed(now, arg%2 == 0, arg%4 < 2); e != nil && (e.From != Closed || e.To != Hearsay) {
					t.Fatalf("%+v", e)
				}
			case 4:
				g := b.Generation() - uint64(arg&1)
				if arg < 8 {
					if e := b.Recover(now, g); e != nil && (arg&1 == 1 || e.From != Open && e.From != HalfOpen) {
						t.Fatalf("%+v", e)
					}
				} else if b.Postpone(g, now+int64(arg-10)*int64(time.Minute)) && arg&1 == 1 {
					t.Fatal("one of another generation was postponed")
				}
			case 5, 6, 7:
				b.Record(now, ticket, Class(arg%5), time.Duration(arg)*time.Second)
			case 8, 9, 10:
				now = min(now+int64(op)*int64(time.Second)/16, far)
			case 11:
				now = max(0, now-int64(op)*int64(time.Second))
			case 12:
				b.Force(now, arg%2 == 0)
			case 13:
				b.Release(now)
			case 14:
				b.OpenFor(now, ticket, time.Duration(arg-4)*time.Second)
			case 15:
				if rest := ops[i+1:]; len(rest) >= 8 {
					b.Configure(now, settings(binary.LittleEndian.Uint64(rest)))
				}
			}
			s := b.Snapshot(now)
			if s.State > ForcedOpen || s.Probes > 3 || s.Share < 0 || s.Share > 1 || s.OpenFor < 0 {
				t.Fatalf("%+v", s)
			}
			if s.Counts.Calls > uint64(len(ops)) || s.Counts.Failures > uint64(len(ops)) {
				t.Fatalf("%+v after %d operations", s, len(ops))
			}
		}
		b.Release(now)
		// The clock may have gone back by as much as the operations say.
		now += int64(len(ops)+1) * int64(300*time.Second)
		for range 40 {
			if a := b.Admit(now); a.Admitted {
				b.Record(now, a.Ticket, Success, 0)
			}
			now += int64(time.Hour)
		}
		if s := b.Snapshot(now); s.State != Closed {
			t.Fatalf("wedged: %+v", s)
		}
	})
}
