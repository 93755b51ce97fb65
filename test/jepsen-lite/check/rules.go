package check

// rules is the one table of what must hold, in the order in which it is shown.
var rules = []Rule{
	{"R0", "The history is well formed: a client has one operation at a time, and no value is written twice.", wellFormed},
	{"R1", "Whatever an operation sees is at least as new as everything that had returned when it was called; a value has one revision and a revision one value.", revisionSweep},
	{"R2", "Every register is linearizable.", linearizable},
	{"R3", "A read that asks for a revision is answered from it or a later one.", minRevision},

	{"D1", "What was acknowledged is there at the end, on every server.", survives},
	{"D2", "A request takes effect at most once, not at all if it was refused, and at the revision that was acknowledged.", exactlyOnce},
	{"D3", "A term has one leader.", oneLeader},
	{"D4", "Equal indexes mean equal commands and equal states, on all servers and in all their incarnations.", sameCommands},
	{"D5", "All who are at one revision at the end hold the same.", sameEnds},
	{"D6", "No server leaves out a command, each command that takes effect raises the revision by one, and what is restored from a snapshot is the state that others had there.", contiguous},

	{"W1", "A watcher never goes back.", watchRule("W1")},
	{"W2", "Nothing is told twice.", watchRule("W2")},
	{"W3", "What was written together arrives together.", watchRule("W3")},
	{"W4", "Nothing is left out: the state after a delta is the replay of the log at its end.", watchRule("W4")},
	{"W5", "A watch that resumes goes on exactly where it was, or begins anew with a whole snapshot.", watchRule("W5")},
	{"W6", "Progress to a revision means that nothing up to it is missing, and nothing up to it follows.", watchRule("W6")},
	{"W7", "A watcher is told what it asked for, and nothing else.", watchRule("W7")},
	{"W8", "Values are those of their revisions, and everybody is told the same root.", watchRule("W8")},
	{"W9", "Nothing is told that was not committed, nor before it was.", watchRule("W9")},
	{"W10", "All watchers come to the same end.", converged},

	{"C1", "Every decision is answered, locally and at once, at all times.", answered},
	{"C2", "What is decided by is what the log has at the revision of the view.", provenance},
	{"C3", "An instance never goes back to an older view, also not by another server or by its disk.", forwardOnly},
	{"C4", "No instance is further behind than it says; one that is connected and undisturbed follows at once.", honest},
	{"C5", "Nobody sees half of an update.", wholeUpdates},
	{"C6", "A read of a server's own state shows the state that it names.", localReads},
	{"C7", "The default of the code is returned where nothing is known, as such, and nowhere else.", coldStart},
	{"C8", "A breaker that opens because of others does so while they say so and its own calls do not all go well, and not for long after.", heedsFresh},
	{"C9", "Overrides are obeyed at their level, and end on time.", endsOnTime},

	{"G1", "After the heal everybody holds the same opinions.", agreement},
	{"G2", "Nothing older comes back, and nothing that was dropped.", noResurrection},
	{"G3", "What is passed on is what its origin said.", noInvention},
	{"G4", "Only the origin makes news, and a restarted one speaks as a new incarnation.", onlyOrigin},
	{"G5", "Evidence expires by the holder's own clock.", expires},
	{"G6", "Who is dead leaves everybody's view.", deadLeave},
	{"G7", "After the heal every member sees every other one.", whole},
	{"G8", "Gossip costs little where nothing is new, and each thing that is new a few packets; nothing waits without end.", boundedGossip},
	{"G9", "On every side of a cut, instances stop calling what only fails, and call again when it is well.", outages},

	{"L1", "After the heal every server takes writes, and everybody catches up, within the deadline.", recovers},
	{"L2", "The larger side goes on acknowledging writes while a minority is disturbed.", available},
	{"L3", "Every fault bit.", everyFaultBit},
	{"L4", "Enough happened.", throughput},
	{"P1", "No process ends by itself, but for one whose disk fails.", diesOnlyWhenTold},
	{"U1", "Processes use at the end what they used at first, instances to a few connections.", backToBase},
}
