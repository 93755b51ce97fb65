package client

import (
	"time"

	"github.com/holdfast-dev/holdfast/internal/flags"
)

// Mode is the handle of a mode.
type Mode struct {
	holder *holder
	name   string
}

// Mode returns the handle of a mode. One that does not exist is normal.
func (c *Client) Mode(name string) *Mode { return &Mode{c.holder, name} }

// Level is the level of a mode.
type Level struct {
	// Name is "normal" at rank 0; the most degraded level has the highest rank.
	Name string
	Rank int
	// By names the override that decides, such as "override/x"; empty at rank 0.
	By string
	// Ends is when it ends by itself, by the wall clock of the instance; zero if it
	// does not.
	Ends time.Time
}

// Level returns the level at which the mode is for this instance.
func (m *Mode) Level() Level { return m.holder.level(m.holder.view(), m.name) }

func (h *holder) level(v *flags.View, mode string) Level {
	if v == nil {
		return Level{Name: flags.Normal}
	}
	l := v.Mode(mode)
	if l.Rank == 0 {
		return Level{Name: flags.Normal}
	}
	return Level{Name: l.Name, Rank: l.Rank, By: l.Decider(), Ends: h.wall(l.End)}
}

// Is tells whether the mode is at a level or at a more degraded one. It is false
// for a level that the mode does not have. It allocates nothing.
func (m *Mode) Is(level string) bool {
	v := m.holder.view()
	if v == nil {
		return level == flags.Normal
	}
	return v.AtLevel(m.name, level)
}
