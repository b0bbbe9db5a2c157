/* SPDX-License-Identifier: Apache-2.0 */
/* The worker: one context for its control thread. */
#ifndef WORKER_PAGER_H
#define WORKER_PAGER_H

#include <ev.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"
#include "ipc/endpoint.h"
#include "worker/rejoin.h"

struct session;

struct pager {
	struct ev_loop *loop;
	struct endpoint link; /* to the supervisor */
	int rendezvous;	      /* owned; where a later supervisor connects; -1 */
	struct list sessions; /* of struct session.link */
	struct list images;   /* of struct image.link */
	unsigned nr_sessions;
	bool is_adopting; /* some may have a SESSION_ADOPT that is not answered yet */
	bool draining;
	struct rejoin rejoin;
	uint64_t overlays_of;			  /* the session that overlays_fd is meant for */
	int overlays_fd;			  /* owned; -1: none wait to be claimed */
	struct ipc_session_image_name image_name; /* of the session that is told of next */
	int exit_code;
	uint32_t sandbox;
	ev_async posted;  /* a thread has something to say */
	ev_prepare sweep; /* the end of a loop turn: is it time to exit? */
	pthread_attr_t thread_attr;
	_Atomic unsigned leaving; /* threads that no session counts any more, and not quite gone */
};

void pager_init(struct pager *pager);
void pager_run(struct pager *pager, int link_fd, int rendezvous_fd);
void pager_fini(struct pager *pager);

/* Sends to the supervisor; what cannot be sent is dropped with the link. */
void pager_send(struct pager *pager, const struct ipc_msg *msg, const int *fds, size_t nr_fds);

/* Keeps the overlays of a session that is about to be told of, in place of any before:
 * its SESSION_OPEN or SESSION_ADOPT is the next message.  Takes fd over. */
void pager_keep_overlays(struct pager *pager, uint64_t session, int fd);
/* They are the caller's now; -1 when none came for it. */
int pager_claim_overlays(struct pager *pager, uint64_t session);

/* From any thread. */
void pager_wake(struct pager *pager);

/* Ends the control loop with this exit code. */
void pager_stop(struct pager *pager, int exit_code);

/* link.c */
extern const struct endpoint_ops pager_link_ops;
void pager_say_hello(struct pager *pager);

#endif
