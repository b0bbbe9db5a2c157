/* SPDX-License-Identifier: Apache-2.0 */
/* Life without a supervisor, and with the next one.
 *
 * While there is none, what is served is served on; nothing new begins: a VMM that
 * connects waits, and a completion is given up.  The next supervisor connects to the
 * rendezvous socket and asks for the inventory; what happened to a session before it was
 * told of it, it is told instead of the event. */
#ifndef WORKER_REJOIN_H
#define WORKER_REJOIN_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/list.h"
#include "common/log.h"
#include "worker/acceptor.h"

struct ipc_inventory;
struct pager;
struct session;

struct rejoin {
	struct acceptor knocking; /* the rendezvous socket */
	ev_timer look_round;	  /* while no supervisor watches the VMMs */
	uid_t supervisor_uid;
	bool is_telling; /* an inventory is under way */
	uint32_t telling_seq;
	uint32_t told;	     /* SESSION_HELD_… of this inventory */
	struct list endings; /* what is remembered of sessions that ended, oldest first */
	unsigned nr_endings;
	unsigned nr_untold; /* of them */
	uint64_t lost_ns;   /* when the link was lost; 0: it was not */
	struct log_limit knock_limit;
};

void rejoin_init(struct pager *pager);
/* Who is at the other end of link_fd is the only user that may come back. */
void rejoin_start(struct pager *pager, int link_fd);
void rejoin_fini(struct pager *pager);

/* The link is gone. */
void rejoin_lost(struct pager *pager);

/* INVENTORY: words_fd is the new standard error and is taken over. */
void rejoin_answer(struct pager *pager, const struct ipc_inventory *msg, int words_fd);
/* At each turn of the loop: tells more of the inventory, as fast as the link takes it. */
void rejoin_continue(struct pager *pager);

/* A session is about to be freed: remembers how it ended. */
void rejoin_remember(const struct session *s);
/* It is here again. */
void rejoin_forget(struct pager *pager, uint64_t number);

/* There is no link and no session: nobody needs what is remembered, or long enough was
 * waited for somebody to tell it to. */
bool rejoin_may_exit(const struct pager *pager);

#endif
