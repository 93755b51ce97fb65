// Package session keeps an instance up to date: a stream to one of the servers, a
// cache on disk, and a mirror of the namespace between the two.
//
// # Who calls whom
//
// Open reads the disk and, if there is a view on it, calls Handler.Install before it
// returns; it never waits for a server. From then on the handler is called by one
// goroutine at a time:
//
//	Install       what changed, checked already. The handler swaps its view before it
//	              returns; the session then acknowledges at once, which is how an
//	              operator sees that the instance obeys. A change of nothing, from a
//	              server, confirms what came from the disk.
//	StateTime     the state time now, whenever the estimate is another one. The handler
//	              sets its own clock by it, to end overrides while cut off.
//	Connected     a server answers, or one that had fallen silent speaks again.
//	Disconnected  a stream broke, its server has fallen silent, or an attempt failed;
//	              the session goes on trying.
//
// Another goroutine asks Handler.Report what the instance cannot obey, whenever it
// acknowledges: what is told is never older than what is acknowledged. Who has
// another report without an Install calls Session.Acknowledge.
//
// Config.Gossip is called in turn with the handler, but for State and Own, which the
// goroutine that sends calls: Settings and Evidence before the event of their message is taken in,
// Head after that. What an instance observed goes to the server only once it has granted
// to take it, and always as it is when it is sent.
//
// Nothing calls the handler after Close has returned nil. A handler that panics loses
// the change, not the process: the session reports it and connects again, slowly.
//
// State time goes back by a Change with Replace, which tells the time to go by.
// Otherwise it goes back only by what the clock of the instance is too fast, which is
// less than what has gone by since it was told: what has ended stays so.
//
// # What it promises
//
// What a handler is given has the Merkle root that the server told, and is never
// behind what it was given before, also across restarts: a mark beside the cache file
// keeps the highest position. What does not fit, because something was missed, is
// healed with a snapshot.
//
// While no server answers, Offer takes what a peer has and the servers have signed, by
// the same rules; it calls the handler in turn with the others. A server that is at the same place later sends nothing but a confirmation.
//
// # Connecting
//
// Servers are tried in a random order, those of the configuration first, then those
// that servers told of. The pause before an attempt is random between 0 and 100 ms,
// doubled with each failure up to 5 s, or up to 1 min after a refusal that the next
// attempt will meet as well; a server that asks for more time gets it. A server
// has 1.5 s to answer, doubled with each failure to 5 s; the pause after that is at most
// 1 s. A stream that lasted 10 s begins the count anew.
//
// A server that says nothing for an interval of progress and another 1 to 2 s has fallen
// silent: it is told to be lost, and other servers are tried beside it, one after the
// other. Whoever of the two says something first is followed, and the other one left; so
// there are at most two streams, and what the one that is left still says counts for
// nothing. After three intervals the silent stream ends. A server that is late is not
// silent: how much later reports come as a rule is added, up to three intervals in all,
// and in the middle of a change, or before the first one, it is those at once. Each time
// that another server was sooner than the silent one what is added doubles, and while
// reports come in time it is halved: where all servers are slow instances do not wander.
//
// Servers of the previous version, which have no SessionService,
// are watched by StateService.Watch; nothing is acknowledged to them.
//
// # Disk
//
// A directory has, for each namespace, the cache, the mark, what is known of the pool
// (Trust; it holds secrets) and a lock. One process at a time writes there; others read, and take over when the lock comes free. The cache
// is replaced as a whole: written beside, synced, renamed. It is written at most every
// second, and for at most a tenth of the time. A file that is damaged, or of another
// version or namespace, is moved aside as *.corrupt and logged. One that cannot be read
// at the moment is logged and left alone, until there is something to write.
//
// Nothing that happens to the disk keeps an instance from working. An instance that is
// to follow another cluster has to lose cache and mark: it takes the other one for a
// stranger.
package session
