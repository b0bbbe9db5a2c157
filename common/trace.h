/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of an image in an order, in a sealed memfd that supervisor and worker share and that
 * outlives a worker: a page with the header, then 32 bit words.
 *
 *	recording	a worker's fault thread appends the page of each fault; a word is a page
 *	plan		a worker is to fill these; two words are a run: first page, pages
 *
 * The supervisor maps it read-only and trusts nothing in it.  A worker trusts the words of a
 * plan as far as any number in them: another worker has had it, too. */
#ifndef COMMON_TRACE_H
#define COMMON_TRACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRACE_MAGIC	   UINT64_C(0x7061676574726163)
#define TRACE_LAYOUT	   1U
#define TRACE_HEADER_BYTES 4096U
#define TRACE_MAX_WORDS	   (UINT32_C(1) << 21)

enum trace_kind {
	TRACE_RECORDING = 1,
	TRACE_PLAN = 2,
};

/* Of a plan. */
enum trace_state {
	TRACE_WAITING = 0, /* for the handshake */
	TRACE_RUNNING = 1,
	TRACE_DONE = 2,
	TRACE_STOPPED = 3, /* before its end */
	TRACE_FAILED = 4,  /* with error */
};

struct trace_header {
	uint64_t magic;
	uint32_t layout;
	uint32_t kind;	     /* enum trace_kind */
	uint64_t room;	     /* words that there is room for */
	_Atomic uint64_t nr; /* words that are valid, published after them */
	_Atomic uint32_t state;
	_Atomic uint32_t error; /* errno behind TRACE_FAILED */
	/* Pages of a plan by what became of them. */
	_Atomic uint64_t filled;
	_Atomic uint64_t present;	     /* a fault, or who replayed it before, was faster */
	_Atomic uint64_t outside;	     /* of every region */
	_Atomic uint64_t left;		     /* left out on purpose: see trace_is_left_out() */
	_Atomic uint64_t began_ns, ended_ns; /* CLOCK_MONOTONIC; 0: not yet */
};

_Static_assert(sizeof(struct trace_header) <= TRACE_HEADER_BYTES, "header");

struct trace {
	struct trace_header *header; /* NULL: not mapped */
	_Atomic uint32_t *words;     /* room of them */
	uint64_t room;		     /* as validated when mapped */
	enum trace_kind kind;
	size_t mapped_bytes;
};

/* Makes one whose memory is there already; words may be NULL and nr 0.  0 and a descriptor
 * that the caller owns, or a negative errno. */
int trace_create(
    enum trace_kind kind, uint64_t room, const uint32_t *words, uint64_t nr, int *ret_fd);

/* Maps one and checks magic, layout, size and seals: -EPROTO when they are wrong or it is of
 * another kind.  fd stays the caller's and is not needed afterwards. */
int trace_map(struct trace *trace, int fd, enum trace_kind kind, bool writable);
void trace_unmap(struct trace *trace);

/* How many words are valid: never more than there is room for. */
static inline uint64_t
trace_nr(const struct trace *trace)
{
	uint64_t nr = atomic_load_explicit(&trace->header->nr, memory_order_acquire);

	return nr < trace->room ? nr : trace->room;
}

static inline uint32_t
trace_word(const struct trace *trace, uint64_t at)
{
	return atomic_load_explicit(&trace->words[at], memory_order_relaxed);
}

/* Appends a page; the caller is the only one who does.  Nothing happens when it is full. */
static inline void
trace_note(struct trace *trace, uint32_t page)
{
	uint64_t nr = trace_nr(trace);

	if (nr >= trace->room)
		return;
	atomic_store_explicit(&trace->words[nr], page, memory_order_relaxed);
	atomic_store_explicit(&trace->header->nr, nr + 1, memory_order_release);
}

/* A page filled ahead of its use looks the same whether it is used or not.  So one page in
 * sample is left to faults, by its place in the plan: how many of those are asked for says
 * what share of the others is used.  sample 0: none. */
static inline bool
trace_is_left_out(uint64_t place, uint64_t sample)
{
	return sample != 0 && place % sample == sample - 1;
}

#endif
