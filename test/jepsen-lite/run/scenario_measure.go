package run

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
)

// measuredRate is what clients do per second where figures are taken: less than
// usual, since they are of the product and not of the machine.
const measuredRate = 100

// measuring are scenarios whose figures count as much as their verdicts.
func measuring() []Scenario {
	return []Scenario{
		{
			Name: "failover", About: "the leader is killed, stands still, is cut off: how long nobody can write",
			Lanes: [][]string{{"failover-kill", "failover-pause", "failover-isolate"}}, Measures: true, AfterHeal: agreeBy,
		},
		{
			Name: "failover-disk", About: "the leader's disk hangs: how long nobody can write",
			Lanes: [][]string{{"failover-disk-hang"}}, Disks: true, Measures: true, AfterHeal: agreeBy,
		},
		{
			Name: "partitions", About: "cuts of 2 s to a minute: how soon everybody agrees again",
			Lanes: [][]string{{"partition-*"}}, Measures: true, AfterHeal: agreeBy,
		},
	}
}

// agreed waits until every instance is connected and has come to a place, by what it
// has recorded.
func (c *crew) agreed(ctx context.Context, at history.Place) error {
	return process.Poll(ctx, func() error {
		for _, m := range c.instances {
			d, err := m.lastDecision()
			switch {
			case err != nil:
				return err
			case !d.Connected || (history.Place{Epoch: d.Epoch, Revision: d.Revision}).Before(at):
				return fmt.Errorf("%s is at revision %d of epoch %d, connected: %v; %d of %d is awaited", m.id, d.Revision, d.Epoch, d.Connected, at.Revision, at.Epoch)
			}
		}
		return nil
	})
}

var errNoDecision = errors.New("it has recorded no decision lately")

// lastDecision is the last that the instance has recorded whole.
func (m *member) lastDecision() (d history.Decision, err error) {
	const tail = 64 << 10
	m.mu.Lock()
	path := filepath.Join(m.stage.o.Dir, "history", fmt.Sprintf("%s.%d.jsonl", m.id, m.lives))
	m.mu.Unlock()
	file, err := os.Open(path)
	if err != nil {
		return d, fmt.Errorf("read what %s records: %w", m.id, err)
	}
	defer file.Close() //nolint:errcheck // only read
	if size, err := file.Seek(0, io.SeekEnd); err == nil {
		_, _ = file.Seek(max(0, size-tail), io.SeekStart)
	}
	data, err := io.ReadAll(file)
	if err != nil {
		return d, fmt.Errorf("read what %s records: %w", m.id, err)
	}
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	begin := bytes.LastIndex(data, []byte(`{"kind":"decision"`))
	if begin < 0 {
		return d, fmt.Errorf("%s: %w", m.id, errNoDecision)
	}
	line, _, _ := bytes.Cut(data[begin:], []byte("\n"))
	if err := json.Unmarshal(line, &d); err != nil {
		return d, fmt.Errorf("read what %s records: %w", m.id, err)
	}
	return d, nil
}
