package flags

import (
	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/internal/schema"
)

func checkPolicy(f schema.Fields) { policy.Check(f) }
