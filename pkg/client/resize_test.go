package client

import (
	"database/sql"
	"fmt"
	"sync"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// Whoever looks while sizes change, the last one holds in the end.
func TestLastSizeHolds(t *testing.T) {
	c := opened(t, nil)
	pool := c.Pool("store")
	db := &database{dependency: c.calls.client("store"), pool: sql.OpenDB(new(store))}
	defer db.pool.Close()
	const rounds, changes = 400, 3
	for round := range rounds {
		stop := make(chan struct{})
		var lookers sync.WaitGroup
		for range 8 {
			lookers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						pool.resize()
						db.resize()
					}
				}
			})
		}
		for i := 1; i <= changes; i++ {
			c.put(document.Policy, "store", fmt.Sprintf(`{"bulkhead":{"workers":%d,"max_connections":%d}}`, round+i, round+i))
		}
		close(stop)
		lookers.Wait()
		db.resize()
		if use, want := pool.Use(), round+changes; use.Workers != want || db.pool.Stats().MaxOpenConnections != want {
			t.Fatalf("round %d: %d workers, %d connections, want %d", round, use.Workers, db.pool.Stats().MaxOpenConnections, want)
		}
	}
}
