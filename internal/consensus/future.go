package consensus

import (
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/hashicorp/raft"
)

// futures waits for what raft has promised. raft forgets whatever is still on its
// way to one of its goroutines when that goroutine ends, be it by a shutdown or
// because the store has failed; whoever waited would wait for ever. So a future
// that is pending when raft has ended ends too.
type futures struct {
	ended chan struct{} // closed when nothing of raft runs any more
	once  sync.Once
	paths sync.Map // reflect.Type of a future → []int, where its ShutdownCh is
}

// end must be called once nothing of raft runs any more; it may be called again.
func (f *futures) end() { f.once.Do(func() { close(f.ended) }) }

// errNotTaken marks an error of a future that raft has never got hold of.
var errNotTaken = errors.New("raft did not take it")

// wait returns the error of a future. An error that wraps errNotTaken says that
// nothing has been done and nothing will be.
func (f *futures) wait(future raft.Future) error {
	pending := f.bound(future)
	err := future.Error()
	if err != nil && !pending {
		return fmt.Errorf("%w: %w", errNotTaken, err)
	}
	return err
}

// bound makes a future end with raft, and tells whether there is anything to
// wait for: raft answers what it does not take at once, by a future of another
// kind. The exported field ShutdownCh of raft's futures is meant for this, but
// raft sets it for some kinds only and hides their types.
func (f *futures) bound(future raft.Future) (pending bool) {
	v := reflect.ValueOf(future)
	if v.Kind() != reflect.Pointer {
		return false
	}
	path, known := f.paths.Load(v.Type())
	if !known {
		field, ok := v.Type().Elem().FieldByName("ShutdownCh")
		if !ok || field.Type != reflect.TypeOf(f.ended) {
			return true
		}
		path = field.Index
		f.paths.Store(v.Type(), path)
	}
	v.Elem().FieldByIndex(path.([]int)).Set(reflect.ValueOf(f.ended))
	return true
}
