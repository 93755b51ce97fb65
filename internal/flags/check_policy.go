package flags

import "github.com/holdfast-dev/holdfast/internal/schema"

func checkPolicy(f schema.Fields) {
	f.Only(
		"description", "circuit_breaker", "retry_policy", "timeouts", "bulkhead", "fallback",
		"fleet", "fleet_without_traffic", "enforcement", "dead_letter_queue", "chaos_engineering",
	)
	if len(f.Members) == 0 {
		f.Add(f.Path, "is empty; it needs at least one key")
	}
	f.Description("description")
	for _, name := range []string{
		"circuit_breaker", "retry_policy", "timeouts", "bulkhead", "fallback", "dead_letter_queue", "chaos_engineering",
	} {
		f.Child(name)
	}
	for _, name := range []string{"fleet", "fleet_without_traffic"} {
		if _, ok := f.Members[name].(map[string]any); !ok {
			f.Choice(name, "enforce", "advise", "off")
		}
	}
	f.Choice("enforcement", "observe", "enforce")
}
