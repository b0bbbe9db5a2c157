/* SPDX-License-Identifier: Apache-2.0 */
/* The message codec, driven by the table: a new message or field is tested without a
 * change here but for its sample. */
#include "ipc/message.h"

#include <errno.h>
#include <stdio.h>

#include "tests/unit/tap.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof(*(a)))

enum kind { KIND_u32, KIND_u64, KIND_str };

struct field {
	enum ipc_type type;
	const char *name;
	enum kind kind;
	size_t max;
};

/* clang-format off */
static const enum ipc_type types[] = {
#define MSG(E, id, code, from, fds, doc) IPC_##E,
#define FIELD(id, type, name, max, doc)
#define END(E, id)
#include "ipc/messages.def"
#undef MSG
#undef FIELD
};

enum {
#define MSG(E, id, code, from, fds, doc) TYPE_OF_##id = IPC_##E,
#define FIELD(id, type, name, max, doc)
#include "ipc/messages.def"
#undef MSG
#undef FIELD
};

static const struct field fields[] = {
#define MSG(E, id, code, from, fds, doc)
#define FIELD(id, type, name, max, doc)					\
	{ (enum ipc_type)TYPE_OF_##id, #id "." #name, KIND_##type, (max) },
#include "ipc/messages.def"
#undef MSG
#undef FIELD
};

/* Every integer at its largest, every string as long as it may be. */
#define FILL_u32(p, max) (p) = UINT32_MAX;
#define FILL_u64(p, max) (p) = UINT64_MAX;
#define FILL_str(p, max) memset((p), 'x', (max));
static void
fill(struct ipc_msg *msg)
{
	msg->seq = UINT32_MAX;
#define MSG(E, id, code, from, fds, doc) if (msg->type == IPC_##E) {
#define FIELD(id, type, name, max, doc) FILL_##type(msg->id.name, max)
#undef END
#define END(E, id) }
#include "ipc/messages.def"
#undef MSG
#undef FIELD
#undef END
}
/* clang-format on */

static const struct ipc_msg samples[] = {
    {.type = IPC_HELLO,
	.hello = {7, IPC_PROTOCOL, "1.4.2-rc1", 812, IPC_SANDBOX_SECCOMP | IPC_SANDBOX_OWN_UID, 3}},
    {.type = IPC_SESSION_OPEN,
	.session_open = {1, UINT64_MAX, "vm \xc3\xa4/1", UINT64_C(1) << 40, IPC_SESSION_MEMFD, 4096,
	    2097152, 0}},
    {.type = IPC_SESSION_OPENED, .session_opened = {1, 5, ENOSPC}},
    {.type = IPC_SESSION_SERVING, .session_serving = {0, 5, 2, UINT64_C(4) << 30}},
    {.type = IPC_SESSION_REFUSED, .session_refused = {0, 5, "region 0 and region 1 overlap"}},
    {.type = IPC_SESSION_CLOSE, .session_close = {UINT32_MAX, 5}},
    {.type = IPC_SESSION_CLOSED, .session_closed = {UINT32_MAX, 5}},
    {.type = IPC_SESSION_COMPLETE, .session_complete = {128, 5, UINT64_C(1) << 33}},
    {.type = IPC_SESSION_ABORT, .session_abort = {129, 5}},
    {.type = IPC_SESSION_COMPLETED, .session_completed = {128, 5, IPC_COMPLETION_FAILED, EIO, "r"}},
    {.type = IPC_SESSION_GONE, .session_gone = {0, 5}},
    {.type = IPC_SESSION_ALARM, .session_alarm = {0, 5, IPC_ALARM_FILL, ENOMEM, ""}},
    {.type = IPC_DRAIN, .drain = {256}},
    {.type = IPC_PING, .ping = {65536}},
    {.type = IPC_PONG, .pong = {65536, 127}},
    {.type = IPC_SESSION_CONNECTED, .session_connected = {0, 5}},
    {.type = IPC_SESSION_CONNECT, .session_connect = {9, 5}},
    {.type = IPC_SESSION_ADOPT,
	.session_adopt = {10, 5, "vm", UINT64_C(4) << 30, 0, 4096, 65536, 20}},
    {.type = IPC_SESSION_ADOPTED, .session_adopted = {10, 5, EBADF}},
    {.type = IPC_INVENTORY, .inventory = {11}},
    {.type = IPC_SESSION_HELD_WAITING, .session_held_waiting = {11, 5}},
    {.type = IPC_SESSION_HELD_CONNECTED, .session_held_connected = {11, 6}},
    {.type = IPC_SESSION_HELD_SERVING, .session_held_serving = {11, 7}},
    {.type = IPC_SESSION_ENDED, .session_ended = {11, 8, IPC_ENDED_REFUSED, "no region"}},
    {.type = IPC_INVENTORY_END, .inventory_end = {11, 3}},
    {.type = IPC_SESSION_OVERLAYS, .session_overlays = {12, 5}},
    {.type = IPC_SESSION_HELD_OVERLAYS, .session_held_overlays = {11, 7}},
    {.type = IPC_SESSION_PICTURE,
	.session_picture = {13, 7, IPC_PICTURE_NEW | IPC_PICTURE_SINCE, 3}},
    {.type = IPC_SESSION_PICTURED, .session_pictured = {13, 7, 0, 1, 3, 4}},
    {.type = IPC_SESSION_IMAGE, .session_image = {0, 5, IPC_IMAGE_POISONED, EIO, 1U << 30, 3}},
    {.type = IPC_SESSION_IMAGE_FILE, .session_image_file = {0, 5, UINT64_MAX, 1, 0}},
    {.type = IPC_SESSION_IMAGE_NAME,
	.session_image_name = {12, 5, 2049, UINT64_MAX, UINT64_C(1) << 60, 1}},
    {.type = IPC_SESSION_TRACE, .session_trace = {13, 5, 2, UINT64_C(1) << 40, 128}},
    {.type = IPC_SESSION_TRACE_STOP, .session_trace_stop = {14, 5, 1}},
    {.type = IPC_SESSION_HELD_TRACE, .session_held_trace = {15, 5, 1}},
};
_Static_assert(ARRAY_SIZE(samples) == ARRAY_SIZE(types), "add a sample for the new message");

static enum ipc_error
decode(struct ipc_msg *ret, const void *frame, size_t bytes)
{
	/* An exact copy on the heap, so that ASan sees a read past the end. */
	void *exact = malloc(bytes ? bytes : 1);

	if (!exact)
		abort();
	const unsigned char *p = memcpy(exact, frame, bytes);
	enum ipc_type type = bytes > 1 ? (enum ipc_type)p[1] : (enum ipc_type)0;

	enum ipc_error error =
	    ipc_decode(ret, exact, bytes, ipc_type_sender(type), ipc_type_fds(type));
	free(exact);
	return error;
}

static void
test_round_trip(const struct ipc_msg *msg, const char *what)
{
	unsigned char frame[IPC_MAX_FRAME_BYTES], again[IPC_MAX_FRAME_BYTES];
	const char *name = ipc_type_name(msg->type);
	struct ipc_msg back;

	int n = ipc_encode(msg, frame, sizeof(frame));
	if (!ok(n > 0, "%s: %s encodes", name, what))
		return;
	is_int(decode(&back, frame, (size_t)n), IPC_OK, "%s: %s decodes", name, what);
	ok(memcmp(msg, &back, sizeof(back)) == 0, "%s: %s comes back the same", name, what);
	is_int(ipc_encode(&back, again, sizeof(again)), n, "%s: %s encodes alike", name, what);
	ok(memcmp(frame, again, (size_t)n) == 0, "%s: %s has one encoding", name, what);

	int refused = 0, fitted = 0;
	for (size_t cut = 0; cut < (size_t)n; cut++) {
		refused += decode(&back, frame, cut) == IPC_E_ENCODING;
		fitted += ipc_encode(msg, again, cut) != -EMSGSIZE;
	}
	is_int(refused, n, "%s: each prefix of %s is refused", name, what);
	is_int(fitted, 0, "%s: %s fits in no smaller buffer", name, what);
	if ((size_t)n < sizeof(frame)) {
		frame[n] = 0;
		is_int(decode(&back, frame, (size_t)n + 1), IPC_E_ENCODING,
		    "%s: %s with a byte after it is refused", name, what);
	}
}

static void
test_envelope(const struct ipc_msg *msg)
{
	const char *name = ipc_type_name(msg->type);
	enum ipc_role sender = ipc_type_sender(msg->type);
	enum ipc_role other = sender == IPC_WORKER ? IPC_SUPERVISOR : IPC_WORKER;
	size_t fds = ipc_type_fds(msg->type);
	unsigned char frame[IPC_MAX_FRAME_BYTES];
	struct ipc_msg back;

	size_t n = (size_t)ipc_encode(msg, frame, sizeof(frame));
	is_int(ipc_decode(&back, frame, n, other, fds), IPC_E_SENDER, "%s: wrong sender", name);
	is_int(ipc_decode(&back, frame, n, other, fds + 1), IPC_E_SENDER,
	    "%s: sender comes before descriptors", name);
	for (size_t wrong = 0; wrong <= IPC_MAX_FDS; wrong++)
		if (wrong != fds)
			is_int(ipc_decode(&back, frame, n, sender, wrong), IPC_E_FDS,
			    "%s: %zu descriptors", name, wrong);

	frame[0]++; /* one element more, and a zero for it */
	frame[n] = 0;
	is_int(ipc_decode(&back, frame, n + 1, sender, fds), IPC_E_COUNT, "%s: long", name);
	is_int(ipc_decode(&back, frame, n + 1, sender, fds + 1), IPC_E_FDS,
	    "%s: descriptors come before the count", name);
	const unsigned char code_only[] = {0x91, (unsigned char)msg->type};
	is_int(ipc_decode(&back, code_only, 2, sender, fds), IPC_E_COUNT, "%s: short", name);
}

/* A frame put together by hand, so that the decoder is not only asked for what our own
 * encoder makes. */
struct frame {
	unsigned char data[IPC_MAX_FRAME_BYTES];
	size_t bytes;
};

static void
put_uint(struct frame *frame, uint64_t value, unsigned width)
{
	static const unsigned char head[] = {[1] = 0xcc, [2] = 0xcd, [4] = 0xce, [8] = 0xcf};

	frame->data[frame->bytes++] = head[width];
	while (width--)
		frame->data[frame->bytes++] = (unsigned char)(value >> (8 * width));
}

static void
put_str(struct frame *frame, size_t bytes, unsigned char with)
{
	frame->data[frame->bytes++] = 0xd9;
	frame->data[frame->bytes++] = (unsigned char)bytes;
	memset(frame->data + frame->bytes, with, bytes);
	frame->bytes += bytes;
}

/* The ways to put a field: the first two are valid. */
enum way { WAY_SHORT, WAY_FULL, WAY_OTHER_TYPE, WAY_TOO_BIG, WAY_NUL, WAYS };

/* False when that way does not exist for the kind. */
static bool
put_field(struct frame *frame, const struct field *f, enum way way)
{
	bool is_str = f->kind == KIND_str;

	switch (way) {
	case WAY_SHORT:
		if (is_str)
			put_str(frame, 0, 0);
		else
			put_uint(frame, 1, 1);
		return true;
	case WAY_FULL:
		if (is_str)
			put_str(frame, f->max, 'y');
		else
			put_uint(frame, f->kind == KIND_u32 ? UINT32_MAX : UINT64_MAX, 8);
		return true;
	case WAY_OTHER_TYPE:
		if (is_str)
			put_uint(frame, 1, 2);
		else
			put_str(frame, 1, '1');
		return true;
	case WAY_TOO_BIG:
		if (is_str && f->max < 255)
			put_str(frame, f->max + 1, 'z');
		else if (f->kind == KIND_u32)
			put_uint(frame, UINT64_C(1) << 32, 8);
		else
			return false;
		return true;
	case WAY_NUL:
		if (is_str)
			put_str(frame, f->max, 0);
		return is_str;
	case WAYS:
		break;
	}
	return false;
}

/* victim is put in a given way, every other field of its message in the shortest. */
static void
test_field(const struct field *victim, enum way way)
{
	static const char *const words[] = {
	    "short", "full", "of another type", "too big", "with a NUL"};
	struct frame frame = {.bytes = 1};
	struct ipc_msg back;
	unsigned elements = 2;
	bool exists = true;

	put_uint(&frame, (uint64_t)victim->type, 4);
	put_uint(&frame, 9, 8);
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		if (fields[i].type != victim->type)
			continue;
		exists &= put_field(&frame, &fields[i], &fields[i] == victim ? way : WAY_SHORT);
		elements++;
	}
	frame.data[0] = (unsigned char)(0x90 | elements);
	if (!exists)
		return;
	is_int(ipc_decode(&back, frame.data, frame.bytes, ipc_type_sender(victim->type),
		   ipc_type_fds(victim->type)),
	    way <= WAY_FULL ? IPC_OK : IPC_E_FIELD, "%s %s", victim->name, words[way]);
	if (way <= WAY_FULL)
		is_int(back.seq, 9, "%s %s: seq", victim->name, words[way]);
}

/* Address space in use at most so far, in KiB. */
static long
peak_kib(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[256];
	long kib = -1;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "VmPeak: %ld kB", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib;
}

/* What msgpack-c must never see: it allocates for the count that a header claims. */
static void
test_bombs(void)
{
	static const struct {
		const char *what;
		size_t bytes;
		const char *data;
		enum ipc_error want;
	} bombs[] = {
	    {"nothing", 0, "", IPC_E_ENCODING},
	    {"array 32", 5, "\xdd\x0f\xff\xff\xff", IPC_E_ENCODING},
	    {"array 32 in an array", 6, "\x91\xdd\x0f\xff\xff\xff", IPC_E_ENCODING},
	    {"array 32 as a field", 8, "\x93\x0d\x00\xdd\x0f\xff\xff\xff", IPC_E_ENCODING},
	    {"array 32 deep down", 10, "\x91\x91\x91\x91\x91\xdd\x0f\xff\xff\xff", IPC_E_ENCODING},
	    {"array 16", 5, "\xdc\x00\x02\x0d\x00", IPC_E_ENCODING},
	    {"map 32", 5, "\xdf\x07\xff\xff\xff", IPC_E_ENCODING},
	    {"map 32 as a field", 8, "\x93\x0d\x00\xdf\x07\xff\xff\xff", IPC_E_ENCODING},
	    {"fixmap", 4, "\x91\x81\x00\x00", IPC_E_ENCODING},
	    {"str 32", 7, "\x93\x0d\x00\xdb\xff\xff\xff", IPC_E_ENCODING},
	    {"str 16", 6, "\x93\x0d\x00\xda\x00\x00", IPC_E_ENCODING},
	    {"str 8 without its length", 4, "\x93\x0d\x00\xd9", IPC_E_ENCODING},
	    {"bin 8", 5, "\x93\x0d\x00\xc4\x00", IPC_E_ENCODING},
	    {"bin 32", 8, "\x93\x0d\x00\xc6\xff\xff\xff\xff", IPC_E_ENCODING},
	    {"ext 32", 9, "\x93\x0d\x00\xc9\xff\xff\xff\xff\x00", IPC_E_ENCODING},
	    {"nil", 4, "\x93\x0d\x00\xc0", IPC_E_ENCODING},
	    {"true", 4, "\x93\x0d\x00\xc3", IPC_E_ENCODING},
	    {"float", 8, "\x93\x0d\x00\xca\x00\x00\x00\x00", IPC_E_ENCODING},
	    {"a negative number", 4, "\x93\x0d\x00\xff", IPC_E_ENCODING},
	    {"int 8", 5, "\x93\x0d\x00\xd0\x05", IPC_E_ENCODING},
	    {"the byte that means nothing", 4, "\x93\x0d\x00\xc1", IPC_E_ENCODING},
	    {"a number alone", 1, "\x0d", IPC_E_ENCODING},
	    {"two arrays", 6, "\x92\x0d\x00\x92\x0d\x00", IPC_E_ENCODING},
	    {"an empty array", 1, "\x90", IPC_E_CODE},
	    {"code 0", 3, "\x92\x00\x00", IPC_E_CODE},
	    {"code 127", 3, "\x92\x7f\x00", IPC_E_CODE},
	    {"code 2^32 + 13", 11, "\x92\xcf\x00\x00\x00\x01\x00\x00\x00\x0d\x00", IPC_E_CODE},
	    {"a code in letters", 3, "\x92\xa0\x00", IPC_E_CODE},
	    {"a seq in letters", 3, "\x92\x0d\xa0", IPC_E_FIELD},
	    {"a seq of 2^32", 11, "\x92\x0d\xcf\x00\x00\x00\x01\x00\x00\x00\x00", IPC_E_FIELD},
	};
	struct ipc_msg back;

	for (size_t i = 0; i < ARRAY_SIZE(bombs); i++) {
		long before = peak_kib();

		is_int(ipc_decode(&back, bombs[i].data, bombs[i].bytes, IPC_SUPERVISOR, 0),
		    bombs[i].want, "%s", bombs[i].what);
		long after = peak_kib();
		ok(before > 0 && after - before < 65536, "%s: maps no memory", bombs[i].what);
	}
	static unsigned char big[IPC_MAX_FRAME_BYTES + 1] = {0x9f};
	is_int(ipc_decode(&back, big, sizeof(big), IPC_WORKER, 0), IPC_E_ENCODING, "oversized");
}

static void
test_encode_errors(void)
{
	unsigned char frame[IPC_MAX_FRAME_BYTES];
	struct ipc_msg msg = {.type = IPC_SESSION_REFUSED};

	memset(msg.session_refused.reason, 'x', sizeof(msg.session_refused.reason));
	is_int(ipc_encode(&msg, frame, sizeof(frame)), -EINVAL, "a string without an end");
	msg.type = (enum ipc_type)0;
	is_int(ipc_encode(&msg, frame, sizeof(frame)), -EINVAL, "type 0");
	msg.type = (enum ipc_type)127;
	is_int(ipc_encode(&msg, frame, sizeof(frame)), -EINVAL, "type 127");
	is_str(ipc_type_name((enum ipc_type)127), "?", "the name of no type");
	is_str(ipc_type_name(IPC_SESSION_OPEN), "SESSION_OPEN", "the name of a type");
	for (int e = IPC_OK; e <= IPC_E_TRUNCATED; e++)
		ok(strcmp(ipc_error_text((enum ipc_error)e), "?") != 0, "error %d has a text", e);
}

static void
test_text(void)
{
	char small[4];

	ipc_text(small, "abc");
	is_str(small, "abc", "a text that fits");
	ipc_text(small, "abcdef");
	is_str(small, "abc", "a text that is cut");
	ipc_text(small, "ab\xc3\xa4");
	is_str(small, "ab", "no half of a UTF-8 sequence");
	ipc_text(small, "a\xc3\xa4");
	is_str(small, "a\xc3\xa4", "a whole UTF-8 sequence at the end");
	ipc_text(small, "\xf0\x9f\x98\x80");
	is_str(small, "", "a sequence that does not fit at all");
}

int
main(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
		struct ipc_msg msg;

		is_int(samples[i].type, types[i], "sample %zu is of the table's type", i);
		test_envelope(&samples[i]);
		/* Memory compares equal only when what no member covers is zero too. */
		memset(&msg, 0, sizeof(msg));
		msg.type = types[i];
		test_round_trip(&msg, "the empty message");
		fill(&msg);
		test_round_trip(&msg, "the largest message");
		test_round_trip(&samples[i], "the sample");
	}
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		for (int way = 0; way < WAYS; way++)
			test_field(&fields[i], (enum way)way);
	test_bombs();
	test_encode_errors();
	test_text();
	return done();
}
