/* One partition, two workers, one satellite that fails: leases, claims by
 * compare-and-set, checkpoints, release, take-over, and a worker that is stopped
 * and goes on. ../DESIGN.md says what is checked. model_test.go runs it:
 *
 *	spin -a partition.pml && gcc -O2 -DSAFETY -o pan pan.c && ./pan
 *	spin -a partition.pml && gcc -O2 -o pan pan.c && ./pan -a -f -N everything
 *
 * Time is abstract. What clocks guarantee is one rule: a lease ends by its
 * holder's own clock before anybody may take the holder for dead.
 *
 * -DMUTANT=1 to 9 removes one rule each; every one of them must show.
 */

#ifndef MUTANT
#define MUTANT 0
#endif

#define NO_LEASE     (MUTANT == 1)	/* the lease is not asked before a call */
#define NO_COMPARE   (MUTANT == 2)	/* a checkpoint is written whatever stands there */
#define TOO_EARLY    (MUTANT == 3)	/* a checkpoint holds the call under way as done */
#define AT_READING   (MUTANT == 4)	/* a new satellite begins at the reading position */
#define NO_WAIT      (MUTANT == 5)	/* a claim does not wait for the known registrations */
#define TOO_DEAD     (MUTANT == 6)	/* an owner with a lease is taken for dead */
#define NO_CUT       (MUTANT == 7)	/* a release does not end the call under way */
#define EARLY_RENEW  (MUTANT == 8)	/* a lapsed lease is renewed before all is given up */
#define FORGET_LANE  (MUTANT == 9)	/* a checkpoint does not list the lane that is behind */

#ifndef MESSAGES
#define MESSAGES 2
#endif
#ifndef LAPSES
#define LAPSES 2	/* leases that end: by death, by a pause, by a broker out of reach */
#endif
#define FAILURES 1		/* calls that fail; they may reach the satellite all the same, later */
#define UNKNOWN 1		/* writes whose answer is lost */
#define RELEASES 1

byte last;			/* of the log */
bool registered;
byte began;

/* The record in PARTITIONS. */
byte owner;			/* 0: released, else worker + 1 */
byte position;			/* of the lane: as listed, or the reading position */
bool known;			/* the registration was applied */

/* The workers. */
bool lease[2];			/* good by the worker's own clock */
bool owns[2];			/* as it believes */
bool sees[2];			/* the registration */
bool fresh[2];			/* the record is at the revision that it knows */
bool unsure[2];
byte next[2];			/* of the lane */
bool lane[2];
byte flying[2];			/* the call under way */
byte stray;			/* a call given up that may still arrive */

/* A write on its way: it may arrive when nobody waits for it any more. */
bool sent[2];
byte wrPos[2], wrOwner[2];
bool wrKnown[2], wrFresh[2];	/* the record is at the revision that it expects */
bool hit;

byte lapses = LAPSES, failures = FAILURES, unknown = UNKNOWN, releases = RELEASES;

/* What the checks need. */
bool got[MESSAGES + 1];
byte durable;			/* highest position that a record has held */
#define ALL (registered && last == MESSAGES && (got[1] || began >= 1) && (got[2] || began >= 2))

ltl everything { <> ALL }

inline receive(m)
{
	/* First receipts are in order and skip nothing, also those of calls
	 * that were given up. */
	assert(m == began + 1 || got[m - 1]);
	got[m] = true
}

inline begin(w)
{
	assert(next[w] > began);
	assert(next[w] > durable);		/* no repeat of what is written down */
	assert(next[w] == began + 1 || got[next[w] - 1]);
	/* Beside a call under way only when that one's worker is out of its lease. */
	assert(!(flying[1 - w] && lease[1 - w]));
	flying[w] = next[w]
}

inline changed()
{
	fresh[0] = false;
	fresh[1] = false;
	wrFresh[0] = false;
	wrFresh[1] = false
}

inline forget(w)
{
	sent[w] = false;
	wrFresh[w] = false;
	wrPos[w] = 0;
	wrOwner[w] = 0;
	wrKnown[w] = false
}

/* The broker takes a write, compares, and sets. */
inline arrive(w)
{
	hit = wrFresh[w] || NO_COMPARE;
	if
	:: hit ->
		owner = wrOwner[w];
		position = wrPos[w];
		known = wrKnown[w];
		changed();
		if
		:: known && position > durable -> durable = position
		:: else
		fi
	:: else
	fi;
	forget(w)
}

inline giveUp(w)
{
	owns[w] = false;
	lane[w] = false;
	if
	:: flying[w] -> stray = flying[w]; flying[w] = 0
	:: else
	fi;
	next[w] = 0;
	fresh[w] = false;
	unsure[w] = false
}

inline prepare(w, o)
{
	wrOwner[w] = o;
	wrFresh[w] = fresh[w];
	wrKnown[w] = sees[w];
	if
	:: FORGET_LANE || !lane[w] -> wrPos[w] = last
	:: else -> wrPos[w] = next[w] - 1
	fi;
	if
	:: TOO_EARLY && flying[w] -> wrPos[w] = flying[w]
	:: else
	fi;
	sent[w] = true
}

/* It begins its lane: what the record knows goes on from its position, what it
 * does not know begins at its own beginning. */
inline begins(w)
{
	lane[w] = true;
	if
	:: known && position >= began -> next[w] = position + 1
	:: known && position < began -> next[w] = began + 1
	:: !known && !AT_READING -> next[w] = began + 1
	:: !known && AT_READING -> next[w] = last + 1
	fi
}

proctype worker(byte w)
{
	bool resting;

end:
	do
	/* The lease. A worker that lapsed gives everything up before it may have
	 * a lease again. When it does so is open: it may be stopped. */
	:: atomic { !lease[w] && owns[w] -> giveUp(w); resting = false }
	:: atomic { !lease[w] && (!owns[w] || EARLY_RENEW) -> lease[w] = true }

	/* A claim: compare and set, so what was read and judged is as it is now. */
	:: atomic {
		lease[w] && !owns[w] && !sent[w] &&
		(owner == 0 || owner == w + 1 || !lease[1 - w] || TOO_DEAD) &&
		(!known || sees[w] || NO_WAIT) ->
		changed();
		owner = w + 1;
		fresh[w] = true;
		owns[w] = true;
		if
		:: sees[w] -> begins(w)
		:: else
		fi }

	/* The registration is known when it is known. */
	:: atomic { registered && !sees[w] && (!owns[w] || !known || NO_WAIT) ->
		sees[w] = true;
		if
		:: owns[w] ->
			lane[w] = true;
			next[w] = began + 1;
			if
			:: AT_READING -> next[w] = last + 1
			:: else
			fi
		:: else
		fi }

	/* A call, and what becomes of it. */
	:: atomic { owns[w] && lane[w] && !resting && !flying[w] && next[w] <= last && (lease[w] || NO_LEASE) -> begin(w) }
	:: atomic { flying[w] && (owns[w] || NO_CUT) && got[flying[w]] -> next[w] = flying[w] + 1; flying[w] = 0 }
	:: atomic { flying[w] && owns[w] && failures -> failures--; stray = flying[w]; flying[w] = 0 }

	/* A checkpoint. Its answer tells the revision; without one the record is
	 * read back first. */
	:: atomic { owns[w] && !sent[w] && !unsure[w] && !resting &&
		(known != sees[w] || lane[w] && position != next[w] - 1) -> prepare(w, w + 1) }
	:: atomic { owns[w] && sent[w] && !unsure[w] ->
		arrive(w);
		if
		:: hit && owner == 0 -> giveUp(w); resting = false
		:: hit && owner != 0 -> fresh[w] = true
		:: else -> unsure[w] = true
		fi;
		hit = false }
	:: atomic { owns[w] && sent[w] && !unsure[w] && unknown -> unknown--; unsure[w] = true }
	:: atomic { owns[w] && unsure[w] ->
		if
		:: owner == w + 1 -> fresh[w] = true; unsure[w] = false
		:: else -> giveUp(w); resting = false
		fi }

	/* A release: no new calls, the one under way ends or is cut off, then the
	 * last checkpoint, which names no owner. */
	:: atomic { owns[w] && !resting && releases && lease[w] -> releases--; resting = true }
	:: atomic { owns[w] && resting && flying[w] && !NO_CUT -> stray = flying[w]; flying[w] = 0 }
	:: atomic { owns[w] && resting && (!flying[w] || NO_CUT) && !sent[w] && !unsure[w] -> prepare(w, 0) }
	od
}

/* The world: what happens to anybody at any time. */
active proctype world()
{
	byte m;

	do
	:: atomic { last < MESSAGES -> last++ }
	:: atomic { !registered -> began = last; registered = true }
	:: atomic { lapses && lease[0] -> lapses--; lease[0] = false }
	:: atomic { lapses && lease[1] -> lapses--; lease[1] = false }
	/* Calls reach the satellite, in time or late. */
	:: atomic { flying[0] && !got[flying[0]] -> m = flying[0]; receive(m); m = 0 }
	:: atomic { flying[1] && !got[flying[1]] -> m = flying[1]; receive(m); m = 0 }
	:: atomic { stray -> m = stray; stray = 0; receive(m); m = 0 }
	/* A write arrives for which nobody waits any more, or is lost. */
	:: atomic { sent[0] && (!owns[0] || unsure[0]) -> arrive(0); hit = false }
	:: atomic { sent[1] && (!owns[1] || unsure[1]) -> arrive(1); hit = false }
	:: atomic { sent[0] && (!owns[0] || unsure[0]) -> forget(0) }
	:: atomic { sent[1] && (!owns[1] || unsure[1]) -> forget(1) }
	/* Nothing is left to do: then nothing may be left undone. */
	:: timeout -> assert(ALL); break
	od
}

init { atomic { run worker(0); run worker(1) } }
