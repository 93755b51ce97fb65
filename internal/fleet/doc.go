// Package fleet is an instance's part in the fleet's health: what all instances say of
// the dependencies that they call, and what this one makes of it.
//
//	guard ──evidence──▶ Member ──record──▶ Store ──▶ gossip, or the session
//	  ▲                   │  ▲               │  ▲
//	  └─heed, postpone,   │  └───news────────┘  └── records of others
//	    recover           └── health: verdict, probe plan, doubt
//
// # Store
//
// Store holds one record of each instance. A record travels in an envelope with its
// age, the certificate of the instance and a signature; what does not verify, is of
// another namespace, too old, too large or comes too fast is refused and counted.
// Servers have one for each namespace in use, instances one each.
//
// # Member
//
// Member looks at the breakers of a guard and at the store when something happened at
// either, and by a timer only while something is not well. It makes of all breakers one
// record, says so if the others need to hear it, weighs what the others say by the rules
// of internal/health, and acts on the breakers from outside: calls cost nothing more
// for it, wait for nothing, and go on as they are if the member fails. Without news
// from others nothing that it does changes what a breaker does.
//
// A record is sent at once when its meaning changes, and every five seconds while it
// says something. The first instance that finds a dependency broken says so at once,
// the others wait a moment and keep silent where enough have spoken; those who find it
// well speak only once somebody found it broken.
package fleet
