package health

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// ErrMalformed is wrapped by the errors of Append and DecodeRecord.
var ErrMalformed = errors.New("malformed record of fleet health")

// format is the first byte of every record. Another one is another layout.
const format = 1

// headerBytes are format, doubt, leaving, incarnation, sequence and the number of
// reports.
const headerBytes = 1 + 1 + 1 + 8 + 8 + 1

// Append appends the record's only encoding to b. Everything is a byte, a fixed
// 64-bit number, or a varint of minimal length; strings have their length before
// them. It is an error if the record is not as Normalize leaves it.
func (r *Record) Append(b []byte) ([]byte, error) {
	if err := r.check(); err != nil {
		return b, err
	}
	start := len(b)
	b = append(b, format, byte(r.Doubt), bit(r.Leaving))
	b = binary.BigEndian.AppendUint64(b, r.Incarnation)
	b = binary.BigEndian.AppendUint64(b, r.Sequence)
	b = append(b, byte(len(r.Reports)))
	for i := range r.Reports {
		b = r.Reports[i].append(b)
	}
	if n := len(b) - start; n > MaxRecord {
		return b[:start], malformed("%d bytes, at most %d", n, MaxRecord)
	}
	return b, nil
}

func (p *Report) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(p.Dependency)))
	b = append(b, p.Dependency...)
	b = append(b, byte(p.Opinion)|byte(p.Probe)<<4, byte(p.Cause))
	for _, n := range [...]uint32{p.Calls, p.Failures, p.Successes, p.Round} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = binary.AppendUvarint(b, uint64(p.Since/tick)) //nolint:gosec // not negative
	if p.Probe != NoResult {
		b = binary.AppendUvarint(b, uint64(p.ProbeAgo/tick)) //nolint:gosec // not negative
	}
	return b
}

// check is what Append and DecodeRecord demand beyond the layout.
func (r *Record) check() error {
	if r.Doubt&^allDoubts != 0 {
		return malformed("doubt %#x", byte(r.Doubt))
	}
	// An instance outdoes what it finds said in its name; there has to be something above.
	if r.Incarnation == math.MaxUint64 || r.Sequence == math.MaxUint64 {
		return malformed("incarnation %d, sequence %d: there is none above", r.Incarnation, r.Sequence)
	}
	if len(r.Reports) > MaxReports {
		return malformed("%d reports, at most %d", len(r.Reports), MaxReports)
	}
	for i := range r.Reports {
		p := &r.Reports[i]
		switch q := *p; {
		case i > 0 && r.Reports[i-1].Dependency >= p.Dependency:
			return malformed("%q out of order", p.Dependency)
		case !validName(p.Dependency):
			return malformed("name of a dependency: %.40q", p.Dependency)
		case p.Opinion == None || p.Opinion > Recovering || p.Probe > Bad:
			return malformed("opinion %d, probe %d of %q", p.Opinion, p.Probe, p.Dependency)
		default:
			if q.normalize(); q != *p {
				return malformed("counts or times of %q", p.Dependency)
			}
		}
	}
	return nil
}

// DecodeRecord reads what Append wrote, and nothing else: each record has one
// encoding. It keeps nothing of b.
func DecodeRecord(b []byte) (Record, error) {
	if len(b) > MaxRecord || len(b) < headerBytes {
		return Record{}, malformed("%d bytes, %d to %d", len(b), headerBytes, MaxRecord)
	}
	if b[0] != format {
		return Record{}, malformed("format %d, this version reads %d", b[0], format)
	}
	if b[2] > 1 {
		return Record{}, malformed("flags %#x", b[2])
	}
	r := Record{
		Doubt: Doubt(b[1]), Leaving: b[2] == 1,
		Incarnation: binary.BigEndian.Uint64(b[3:]), Sequence: binary.BigEndian.Uint64(b[11:]),
	}
	n := int(b[headerBytes-1])
	d := decoder{rest: b[headerBytes:]}
	for range min(n, MaxReports+1) {
		p := d.report()
		if d.bad {
			return Record{}, malformed("cut short, or a number is not minimal")
		}
		r.Reports = append(r.Reports, p)
	}
	if len(d.rest) > 0 {
		return Record{}, malformed("%d bytes behind the last report", len(d.rest))
	}
	if err := r.check(); err != nil {
		return Record{}, err
	}
	return r, nil
}

// decoder reads from a slice; after the first fault all it reads is zero.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) report() Report {
	p := Report{Dependency: string(d.take(d.number(MaxName)))}
	if kind := d.take(2); len(kind) == 2 {
		p.Opinion, p.Probe, p.Cause = Opinion(kind[0]&15), Result(kind[0]>>4), Cause(kind[1])
	}
	for _, n := range [...]*uint32{&p.Calls, &p.Failures, &p.Successes, &p.Round} {
		*n = uint32(d.number(math.MaxUint32)) //nolint:gosec // bounded
	}
	p.Since = time.Duration(d.number(uint64(longest/tick))) * tick //nolint:gosec // bounded
	if p.Probe != NoResult {
		p.ProbeAgo = time.Duration(d.number(uint64(longest/tick))) * tick //nolint:gosec // bounded
	}
	return p
}

// number reads a varint of minimal length.
func (d *decoder) number(most uint64) uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || v > most || n > 1 && d.rest[n-1] == 0 {
		d.rest, d.bad = nil, true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.rest, d.bad = nil, true
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func bit(on bool) byte {
	if on {
		return 1
	}
	return 0
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}
