package client

import (
	"time"

	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/seam"
)

// View is what a client obeys at one moment. Everything that is asked of it is decided
// by one revision, so that flags and modes which are changed in one transaction are
// seen as before it or as after it, never half; handles and Client.Evaluate answer from
// whatever holds at each call. Take one for a request and drop it: a view does not
// change, not even when an override in it ends.
//
// A View is a small value; its methods may be called concurrently, never wait and do
// not fail. The zero View knows nothing, as a client that has no view yet.
type View struct {
	holder *holder
	at     *holding
}

// View returns what the client obeys now. It costs one atomic load.
func (c *Client) View() View {
	if seam.Seeded && seam.Bug(seam.DecisionsWait) && c.session != nil && !c.session.Status().Connected {
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // that is the bug
	}
	return View{c.holder, c.holder.current.Load()}
}

// Revision is the revision that decides; 0 where only the code does.
func (v View) Revision() uint64 {
	if v.at == nil {
		return 0
	}
	return revisionOf(v.at.view)
}

// Evaluate decides a flag of any type; see Client.Evaluate.
func (v View) Evaluate(key string, attributes ...Attribute) Evaluation {
	if v.at == nil {
		return Evaluation{Reason: flags.Error.String(), ErrorCode: notReady}
	}
	return v.holder.evaluate(v.at, key, attributes)
}

// Level returns the level at which a mode is for this instance; see Mode.Level.
func (v View) Level(mode string) Level {
	if v.at == nil {
		return Level{Name: flags.Normal}
	}
	return v.holder.level(v.at.view, mode)
}
