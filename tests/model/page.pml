/* SPDX-License-Identifier: Apache-2.0 */
/* One page of a guest, and everybody who has a hand in it: a model for Spin.
 *
 * The guest's side: a vCPU that reads and writes the page, a balloon that discards it.  The
 * kernel: what worker/uffd.c asks of it, each ioctl in one step.  The worker: its fault
 * thread (worker/fault.c), its control thread, which adopts and then copies in the background
 * (worker/populate.c, worker/complete.c), the copy lock between them.  A killer ends both at
 * any instant; the next worker finds what outlives one: the page's state and the events that
 * were read.  The states of the page are common/page.def itself.
 *
 * Claims: a read gives what the guest must see, whoever died when, and what the guest writes
 * to is never called absent, or a snapshot would have the image's bytes (the assertions); nobody
 * waits for ever (no end state but the marked ones); every history in which each thread gets
 * its turns comes to an end (the formula).
 *
 * WRONG_... put one thing into the wrong order, to see that the model would notice. */

#ifndef VISITS
#define VISITS 3
#endif
#ifndef DISCARDS
#define DISCARDS 2
#endif
#ifndef KILLS
#define KILLS 2
#endif
#ifndef REFUSALS
#define REFUSALS 0
#endif

mtype = { NOTHING, IMAGE, ZEROS, DATA };		/* what a page consists of */
mtype = { ABSENT, FILLING, PRESENT, REMOVED };		/* its state in the map */
mtype = { MARK, FILLED, UNMARK, REMOVE, ZEROED };
mtype = { DONE, EXISTS, AGAIN, NO_RANGE, STALE };	/* the answer to a fill */

/* --- The kernel ------------------------------------------------------------------ */
mtype page = NOTHING;
bool registered = true;
bool changing;		/* a removal is under way: fills are told EAGAIN */
bool removal_unread;	/* its event */
bool fault_unread;	/* the event of the vCPU's fault */
bool asleep;		/* the vCPU, in a fault */
byte refusals;		/* fills for which there was no memory, or no bytes */

/* --- What the guest must see ------------------------------------------------------- */
mtype truth = IMAGE;
bool discarding;	/* begun and not over: zeros are right as well */
bool vcpu_done, balloon_done;

/* --- What outlives a worker: its page map ------------------------------------------ */
mtype state = ABSENT;
bool shared;		/* PAGE_F_SHARED */
bool removal_kept;	/* an event of the last read that is not marked as applied */

/* --- The worker --------------------------------------------------------------------- */
bool locked;		/* the copy lock */
bool demand;		/* the fault thread wants it */
bool serving;		/* the fault thread has been started */
bool stopped;		/* the session has left the pager */
bool dead;
byte nr_ended;

#define is_fillable(s) ((s) == ABSENT || (s) == FILLING)

#define PAGE_T(from, event, to) :: state == from && what == event -> state = to

/* page_step() */
inline step(what, refused)
{
	d_step {
		if
		:: state == FILLING && what == MARK -> shared = true
#ifndef WRONG_UNMARK_OF_ANOTHER
		:: state == FILLING && what == UNMARK && shared
#endif
		:: else ->
			shared = false;
			if
#include "common/page.def"
			:: else -> result = refused
			fi
		fi
	}
}

/* A WAKE, and what a fill does for who waits: the event of a fault that is not read yet goes. */
inline wake()
{
	d_step { asleep = false; fault_unread = false }
}

inline fill_with(content)
{
	d_step {
		if
		:: changing -> result = AGAIN
		:: !changing && !registered -> result = NO_RANGE
		:: !changing && registered && page != NOTHING -> result = EXISTS
		:: else ->
			page = content;
			asleep = false;
			fault_unread = false;
			result = DONE
		fi
	}
}

/* fill_run(): the mark, the ioctl, the mark.  result was DONE and says what came of it. */
inline fill_from_image()
{
	step(MARK, STALE);
	if
	:: result == STALE
	:: else ->
#ifdef WRONG_PRESENT_FIRST
		step(FILLED, result);
#endif
		if
		:: refusals < REFUSALS -> refusals++; result = AGAIN
		:: fill_with(IMAGE)
		fi;
		if
		:: result == DONE -> step(FILLED, result)
		:: result == EXISTS ->
			step(FILLED, result);
			wake()
		:: else -> step(UNMARK, result)
		fi
	fi
}

/* fill_again(). */
inline fill_with_zeros()
{
	fill_with(ZEROS);
	if
	:: result == DONE -> step(ZEROED, result)
	:: result == EXISTS -> wake()
	:: else
	fi
}

inline answer()
{
	if
	:: is_fillable(state) -> fill_from_image()
	:: else -> fill_with_zeros()
	fi;
	d_step {
		if
		:: result == AGAIN -> deferred = true
		:: result == STALE || result == NO_RANGE -> asleep = false; fault_unread = false
		:: else
		fi;
		result = DONE
	}
}

/* One read() gives all that there is; what is read is kept in the page map. */
inline read_events()
{
	d_step {
		has_fault = fault_unread;
		removal_kept = removal_kept || removal_unread;
		fault_unread = false;
		removal_unread = false
	}
}

inline apply_removal()
{
#ifdef WRONG_FORGET_FIRST
	if
	:: removal_kept -> removal_kept = false; step(REMOVE, result)
	:: else
	fi
#else
	if
	:: removal_kept -> step(REMOVE, result); removal_kept = false
	:: else
	fi
#endif
}

inline serve_faults()
{
	serving;
end_idle:
	do
	:: stopped -> break
	:: !stopped && (fault_unread || removal_unread || deferred) ->
#ifdef WRONG_BLIND_RETRY
		if
		:: deferred -> goto retry
		:: else
		fi;
#endif
		demand = true;
		d_step { !locked -> locked = true };
		demand = false;
		read_events();
#ifdef WRONG_FAULT_FIRST
		if
		:: has_fault -> has_fault = false; answer()
		:: else
		fi;
#endif
		apply_removal();
		locked = false;
		if
		:: has_fault -> has_fault = false; answer()
		:: else
		fi;
#ifdef WRONG_BLIND_RETRY
retry:
#endif
		if
		:: deferred -> deferred = false; answer()
		:: else
		fi
	od;
end_served:
	dead
}

active proctype Fault_thread()
{
	bool has_fault, deferred;
	mtype result = DONE;

	do
	:: { serve_faults() } unless { dead };
		d_step { has_fault = false; deferred = false; result = DONE };
		nr_ended++;
end_dead:	!dead;
		nr_ended--
	od
}

inline lock_in_background()
{
#ifdef WRONG_NO_LOCK
	skip
#else
	!demand;
	d_step { !locked -> locked = true }
#endif
}

inline unlock_in_background()
{
#ifdef WRONG_NO_LOCK
	skip
#else
	locked = false
#endif
}

/* detach_locked() */
inline detach()
{
	if
	:: is_fillable(state) || changing -> skip
	:: else ->
		/* The kernel wakes, and then forgets the range: who is about to wait in between
		 * is woken by us. */
		wake();
		registered = false;
#ifndef WRONG_NO_WAKE_AFTER_UNREGISTER
		wake();
#endif
		/* A removal that began before still wants its event to be read. */
		do
		:: removal_unread -> removal_unread = false; step(REMOVE, result)
		:: !removal_unread && !changing -> break
		od;
		stopped = true
	fi
}

/* session_vmm_resume(), then a completion, or a prefetch, or nothing. */
inline control()
{
	apply_removal();
	serving = true;
#ifndef WRONG_NO_WAKE_OF_ADOPTED
	wake();
#endif
	if
	:: copies = false
	:: copies = true; leaves = false
	:: copies = true; leaves = true
	fi;
	do
	:: copies && is_fillable(state) ->
		lock_in_background();
		fill_from_image();
		result = DONE;
		unlock_in_background()
	:: copies && leaves && !is_fillable(state) ->
		lock_in_background();
		detach();
		unlock_in_background();
		if
		:: stopped -> break
		:: else
		fi
	:: (!copies || !leaves) && !(copies && is_fillable(state)) -> break
	od;
end_copied:
	dead
}

active proctype Control_thread()
{
	bool copies, leaves;
	mtype result = DONE;

	do
	:: { control() } unless { dead };
		d_step { copies = false; leaves = false; result = DONE };
		nr_ended++;
end_dead:	!dead;
		nr_ended--
	od
}

/* A worker that has let go of the session may die as it likes. */
active proctype Killer()
{
	byte kills;

	do
	:: kills < KILLS && !stopped ->
		kills++;
		dead = true;
		nr_ended == 2;
		d_step { locked = false; demand = false; serving = false; dead = false };
		nr_ended == 0
	:: break
	od
}

/* --- The guest ---------------------------------------------------------------------- */

active proctype Vcpu()
{
	byte visits;

	do
	:: visits == VISITS -> break
	:: visits < VISITS && page != NOTHING ->
		atomic {
			if
			:: page == NOTHING	/* it has just gone */
			:: page != NOTHING ->
				assert(page == truth || (discarding && page == ZEROS));
				truth = page;
				visits++
			:: page != NOTHING ->
				assert(state != ABSENT);
				page = DATA;
				truth = DATA;
				visits++
			fi
		}
	:: visits < VISITS && page == NOTHING && !registered ->
		d_step {
			if
			:: page == NOTHING -> page = ZEROS
			:: else
			fi
		}
	:: visits < VISITS && page == NOTHING && registered ->
		/* A fault.  Whether to wait is decided once more when the event is queued; the range
		 * cannot be unregistered in between. */
		d_step {
			if
			:: page == NOTHING && registered -> fault_unread = true; asleep = true
			:: else
			fi
		};
		!asleep
	od;
	vcpu_done = true
}

active proctype Balloon()
{
	byte discards;

	do
	:: discards == DISCARDS -> break
	:: discards < DISCARDS ->
		discards++;
		d_step {
			discarding = true;
			if
			:: registered -> changing = true; removal_unread = true
			:: else
			fi
		};
		!removal_unread;
		changing = false;
		d_step { page = NOTHING; truth = ZEROS; discarding = false }
	od;
	balloon_done = true
}

#ifdef ENDS
ltl ends { <>(vcpu_done && balloon_done) }
#endif
