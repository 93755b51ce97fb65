//go:build !unix

package sim

import "time"

func cpu() time.Duration { return 0 }
