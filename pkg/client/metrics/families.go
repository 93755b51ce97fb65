package metrics

import "github.com/prometheus/client_golang/prometheus"

// namespace begins every name.
const namespace = "holdfast_client_"

// kind is the type of a family.
type kind uint8

const (
	gauge kind = iota
	counter
	summary // without quantiles: a sum and a count
)

// family is a metric with its labels.
type family struct {
	name   string
	kind   kind
	help   string
	labels []string
}

// metric is an index of the table of families.
type metric int

const (
	info metric = iota
	connected
	viewSource
	viewRevision
	viewAge
	viewChanges
	problems
	overridden
	disabled
	cacheFailed
	reconnects
	resyncs
	eventsLost

	gossipMode
	gossipMembers
	gossipInstances
	gossipDoubt
	gossipPublished
	gossipReceived
	gossipRefused
	gossipPackets
	gossipBytes
	fleetHeeded
	fleetAdvised
	probesPostponed
	fleetRecoveries
	relayHeads
	relayInstalled
	relayServed
	relayRefused

	enforced
	fleetVerdict
	retryBudget
	bulkheadLimit
	bulkheadInUse
	bulkheadQueued

	calls
	attempts
	rejections
	observed
	hearsayRejections
	advisedCalls
	breakerState
	breakerTransitions
	retries
	retriesRefused
	retrySuccesses
	hedges
	hedgeWins
	timeouts
	bulkheadWaits

	degraded
	cacheMisses
	fallbackFailures
	repliesRecorded

	replyEntries
	replyBytes
	replyLookups
	replyEvictions
	repliesRefused

	families // how many there are
)

// table returns the families. Names without a unit count things.
func table() [families]family {
	var (
		dependency = []string{"dependency"}
		target     = []string{"dependency", "method"}
		with       = func(label string) []string { return []string{"dependency", "method", label} }
		point      = []string{"dependency", "method", "side"}
	)
	return [families]family{
		info:         {"info", gauge, "Always 1; the labels say which instance of what service this is.", []string{"service_name", "service_instance_id", "namespace"}},
		connected:    {"connected", gauge, "1 while there is a session with the control plane.", nil},
		viewSource:   {"view_source", gauge, "1 for where the view comes from: defaults, disk, server, peer, test.", []string{"source"}},
		viewRevision: {"view_revision", gauge, "Revision of the view that is obeyed; 0 without one.", nil},
		viewAge:      {"view_age_seconds", gauge, "Time since a server last said something; absent if none ever did.", nil},
		viewChanges:  {"view_changes_total", counter, "Views that were put into force.", nil},
		problems:     {"problems", gauge, "Definitions and handles that cannot be obeyed; Status().Problems names them.", nil},
		overridden:   {"overridden", gauge, "1 while something local beats the control plane: HOLDFAST_DISABLE or a file.", nil},
		disabled:     {"disabled", gauge, "1 while only the code decides and nothing is enforced.", nil},
		cacheFailed:  {"cache_failed", gauge, "1 while the view cannot be kept on disk.", nil},
		reconnects:   {"reconnects_total", counter, "Sessions that began after the first one.", nil},
		resyncs:      {"resyncs_total", counter, "Times that the state differed from the server's and was fetched anew.", nil},
		eventsLost:   {"events_lost_total", counter, "Events that readers of Events were too slow for.", nil},

		gossipMode:      {"gossip_mode", gauge, "1 for how the instance takes part in what instances tell each other: off, relayed, direct.", []string{"mode"}},
		gossipMembers:   {"gossip_members", gauge, "Members of the pool that the instance knows, itself included; 0 without a socket.", nil},
		gossipInstances: {"gossip_instances", gauge, "Instances that say something of dependencies now, as far as this one knows.", nil},
		gossipDoubt:     {"gossip_doubt", gauge, "1 while the instance does not trust itself: it is not heard, and heeds nobody.", nil},
		gossipPublished: {"gossip_published_total", counter, "Records of its own that the instance sent.", nil},
		gossipReceived:  {"gossip_received_total", counter, "Records of others that were news.", nil},
		gossipRefused:   {"gossip_refused_total", counter, "Records of others that were not let in: late, fast, malformed, oversize, foreign, forged, unknown_signer, expired, full, busy.", []string{"reason"}},
		gossipPackets:   {"gossip_packets_total", counter, "Packets that the pool sent and received, all kinds; none without a socket.", []string{"direction"}},
		gossipBytes:     {"gossip_bytes_total", counter, "Bytes of the packets and streams that the pool sent and received.", []string{"direction"}},
		fleetHeeded:     {"fleet_heeded_total", counter, "Times that calls to a dependency began to be held back because others find it broken.", nil},
		fleetAdvised:    {"fleet_advised_total", counter, "Times that calls to a dependency would have been held back, if the policy heeded others.", nil},
		probesPostponed: {"fleet_probes_postponed_total", counter, "Times that probes were moved because of those of others.", nil},
		fleetRecoveries: {"fleet_recoveries_total", counter, "Recoveries that began because probes of others went well.", nil},
		relayHeads:      {"relay_heads_total", counter, "Signed heads of the namespace that were newer than those before.", nil},
		relayInstalled:  {"relay_installed_total", counter, "Views taken from members while no server was connected, by how much was told: change, document.", []string{"what"}},
		relayServed:     {"relay_served_total", counter, "Documents that members got from the instance whole.", nil},
		relayRefused:    {"relay_refused_total", counter, "What was not believed, or came to nothing: forged, malformed, overloaded, poisoned, silent, question, busy.", []string{"reason"}},

		enforced:       {"enforced", gauge, "1 where the policy is enforced, 0 where it only observes.", dependency},
		fleetVerdict:   {"fleet_verdict", gauge, "1 for what is done because others find the dependency broken: advise, enforce; 0 while they do not.", []string{"dependency", "mode"}},
		retryBudget:    {"retry_budget", gauge, "Retries that the budget would grant now.", dependency},
		bulkheadLimit:  {"bulkhead_limit", gauge, "Places of the bulkhead; 0 means that it has no bound.", dependency},
		bulkheadInUse:  {"bulkhead_in_use", gauge, "Places of the bulkhead that are taken.", dependency},
		bulkheadQueued: {"bulkhead_queued", gauge, "Calls that wait for a place of the bulkhead.", dependency},

		calls:              {"calls_total", counter, "Calls that have ended, refused ones among them.", target},
		attempts:           {"attempts_total", counter, "Attempts by what they say of the dependency: success, slow, failure, overload, neutral.", with("class")},
		rejections:         {"rejections_total", counter, "Calls that policies did not let through: breaker_open, bulkhead_full, bulkhead_timeout, deadline_too_near.", with("reason")},
		observed:           {"observed_rejections_total", counter, "Calls that policies would not have let through, were they enforced.", with("reason")},
		hearsayRejections:  {"hearsay_rejections_total", counter, "Attempts that were refused, or would have been, because other instances find the dependency broken.", target},
		advisedCalls:       {"advised_calls_total", counter, "Calls that were made although other instances find the dependency broken, since the policy does not heed them.", target},
		breakerState:       {"breaker_state", gauge, "1 for the state of the breaker: closed, forced_closed, recovering, hearsay, half_open, open, forced_open.", with("state")},
		breakerTransitions: {"breaker_transitions_total", counter, "Changes of the breaker's state by the new state.", with("state")},
		retries:            {"retries_total", counter, "Retries that were made.", target},
		retriesRefused:     {"retries_refused_total", counter, "Retries that were due but not made: budget, deadline, or rejected by breaker or bulkhead.", with("reason")},
		retrySuccesses:     {"retry_successes_total", counter, "Calls that a retry saved.", target},
		hedges:             {"hedges_total", counter, "Attempts that were made beside others.", target},
		hedgeWins:          {"hedge_wins_total", counter, "Attempts beside others whose answers were taken.", target},
		timeouts:           {"timeout_duration_seconds", summary, "Attempts that ran into their deadline, and what they took.", target},
		bulkheadWaits:      {"bulkhead_wait_duration_seconds", summary, "Attempts that waited for a place of the bulkhead, and how long.", target},

		degraded:         {"degraded_calls_total", counter, "Calls that did not go as usual: reject and shed refused them, cache and fallback answered them.", append(point, "action")},
		cacheMisses:      {"cache_misses_total", counter, "Calls that a mode wanted answered from the cache, which had no answer.", point},
		fallbackFailures: {"fallback_failures_total", counter, "Calls that a chain of fallbacks was to answer, of which none did.", point},
		repliesRecorded:  {"replies_recorded_total", counter, "Replies that were kept for modes that answer from the cache.", point},

		replyEntries:   {"reply_cache_entries", gauge, "Replies that are kept.", nil},
		replyBytes:     {"reply_cache_bytes", gauge, "Bytes of the replies that are kept.", nil},
		replyLookups:   {"reply_cache_lookups_total", counter, "Lookups in the cache of replies: hit, miss.", []string{"result"}},
		replyEvictions: {"reply_cache_evictions_total", counter, "Replies that made room for others.", nil},
		repliesRefused: {"reply_cache_refused_total", counter, "Replies that were too large to be kept.", nil},
	}
}

// descriptions returns what Prometheus is told of the families.
func descriptions() (descs [families]*prometheus.Desc) {
	for i, f := range table() {
		descs[i] = prometheus.NewDesc(namespace+f.name, f.help, f.labels, nil)
	}
	return descs
}
