/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the opener's user; for nobody else. */
#ifndef SUPERVISOR_OPENER_IMPL_H
#define SUPERVISOR_OPENER_IMPL_H

#include <ev.h>

#include "common/list.h"
#include "supervisor/opener.h"

enum opening_state {
	OPENING_WAITING, /* not given to the opener yet */
	OPENING_RUNNING, /* a process does it, or will */
	OPENING_ENDING,	 /* nobody waits for its answer any more; its process lives */
};

struct opening {
	struct list link; /* opener.all */
	struct opener *opener;
	uint64_t number;
	enum opening_state state;
	bool is_stuck;		    /* its time was over, its process lives */
	int failed;		    /* it could not be given: a negative errno, told by the timer */
	struct opener_order *order; /* owned */
	int bytes_fd;		    /* owned; -1: none, or given */
	enum opener_part at;
	uint32_t nth;
	bool knows_storage;
	uint64_t storage; /* of the path that it is at */
	int pidfd;	  /* owned; -1: not known yet */
	ev_io exit;
	ev_timer timer;
	uint64_t asked_ns, timeout_ms;
	opener_done_fn done; /* NULL: nobody waits */
	void *arg;
	bool has_so_far; /* all but the hot list is in word and fds */
	struct opener_word word;
	int fds[OPENER_PARTS]; /* owned; -1: none */
};

struct opener {
	struct supervisor *sup;
	struct list all; /* of struct opening.link, in order of arrival */
	int link;	 /* owned; -1: there is no opener now */
	int pidfd;
	ev_io words, exit;
	ev_timer restart;
	uint64_t next_number;
	unsigned nr_running; /* RUNNING and ENDING */
	unsigned nr_stuck;
};

/* opener.c */

/* Tells who waits, if somebody does, and no one else from then on. */
void opening_answer(struct opening *opening, int error, const char *why);
/* The same of what was not opened: of a hot list alone it is no error. */
void opening_give_up(struct opening *opening, int error, const char *why);
void opening_free(struct opening *opening);
/* Its process has ended; what it has said was heard. */
void opening_ended(struct opening *opening);
/* Gives what waits to the opener, as far as there is room.  Calls nobody: who asks may be
 * asking right now. */
void opener_give(struct opener *opener);

#endif
