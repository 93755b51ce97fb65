package flags

func checkPolicy(f fields) {
	f.only(
		"description", "circuit_breaker", "retry_policy", "timeouts", "bulkhead", "fallback",
		"fleet", "fleet_without_traffic", "enforcement", "dead_letter_queue", "chaos_engineering",
	)
	if len(f.members) == 0 {
		f.add(f.path, "is empty; it needs at least one key")
	}
	f.description("description")
	for _, name := range []string{
		"circuit_breaker", "retry_policy", "timeouts", "bulkhead", "fallback", "dead_letter_queue", "chaos_engineering",
	} {
		f.child(name)
	}
	for _, name := range []string{"fleet", "fleet_without_traffic"} {
		if _, ok := f.members[name].(map[string]any); !ok {
			f.choice(name, "enforce", "advise", "off")
		}
	}
	f.choice("enforcement", "observe", "enforce")
}
