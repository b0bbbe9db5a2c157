/* SPDX-License-Identifier: Apache-2.0 */
/* A session of the worker set up by hand, with guest memory in this very process: a
 * userfaultfd that everybody may have, a page map, and no supervisor.  What cannot be set
 * up ends the test; what does not happen in time ends it too, with the reason. */
#ifndef TESTS_UNIT_WORKER_RIG_H
#define TESTS_UNIT_WORKER_RIG_H

#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/pagemap.h"
#include "worker/page.h"
#include "worker/pager.h"
#include "worker/region.h"
#include "worker/session.h"

#define RIG_PAGE 4096U

struct rig {
	struct pager pager;
	struct session session;
	unsigned char *memory; /* the guest's, one region from offset 0 of the image */
	uint64_t nr_pages;
	int map_fd;
};

void rig_open(struct rig *rig, uint64_t nr_pages);
void rig_close(struct rig *rig);

/* Makes [first, first + nr) of the guest's pages the session's only region. */
void rig_region(struct rig *rig, uint64_t first, uint64_t nr);

/* Gives the session an image, which owns fd from now on. */
void rig_image(struct rig *rig, int fd, uint64_t bytes);

/* A fault thread of the session.  rig_stop() ends every thread and waits for them. */
void rig_serve(struct rig *rig);
void rig_stop(struct rig *rig);

/* Waits until the session's threads have posted what. */
bool rig_posted(struct rig *rig, enum session_post what);

/* A userfaultfd that reports removals, and memory that is registered with it. */
int rig_uffd(void);
void *rig_memory(int uffd, size_t bytes);

/* Puts a page in place behind the session's back.  A waiter is not woken. */
void rig_put(int uffd, void *page, unsigned char byte);
/* Whether the kernel has a page there: no fault would be raised. */
bool rig_has(const void *page);

/* The byte of which the image's page consists, never 0; and a whole page of one byte. */
unsigned char rig_byte(uint64_t page);
bool rig_page_is(const void *page, unsigned char byte);

/* An unlinked file of nr_pages such pages, in directory (NULL: in memory). */
int rig_file(const char *directory, uint64_t nr_pages);
void rig_cut(int fd, uint64_t bytes);

struct run rig_run(const struct rig *rig, uint64_t first, uint64_t nr);
enum page_state rig_state(const struct rig *rig, uint64_t page);
/* True when all the pages [first, first + nr) are in that state. */
bool rig_all(const struct rig *rig, uint64_t first, uint64_t nr, enum page_state state);
uint64_t rig_counter(const struct rig *rig, enum counter counter);

/* Waits for events and reads them. */
bool rig_wait_event(int uffd);
size_t rig_read(int uffd, struct uffd_msg *msgs, size_t max);

/* A thread of the guest. */
struct guest {
	pthread_t thread;
	unsigned char *at;
	size_t bytes;
	unsigned char got;
};

/* Reads one byte at at; guest_join() returns it. */
void guest_touch(struct guest *guest, void *at);
/* Discards a range; the thread waits until the event was read. */
void guest_discard(struct guest *guest, void *at, size_t bytes);
unsigned char guest_join(struct guest *guest);

/* As pthread_join(), for a thread that must not wait for ever. */
void *rig_join(pthread_t thread);

/* Spins until cond holds; a line that never comes true ends the test. */
#define rig_until(cond)                                 \
	do {                                            \
		uint64_t rig_deadline = rig_now();      \
		while (!(cond))                         \
			rig_check(rig_deadline, #cond); \
	} while (0)
uint64_t rig_now(void);
void rig_check(uint64_t begin_ns, const char *what);

#endif
