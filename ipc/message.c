/* SPDX-License-Identifier: Apache-2.0 */
/* The only file that knows msgpack-c.  One encoder and one decoder walk descriptors
 * that are expanded from the table.
 *
 * A peer's bytes pass check_flat() first: msgpack-c allocates for the element count
 * that a header claims (five bytes can make it map 8 GiB), at any depth. */
#include "ipc/message.h"

#include <errno.h>
#include <msgpack.h>
#include <stdbool.h>
#include <string.h>

enum kind { KIND_u32, KIND_u64, KIND_str };

struct field {
	const char *name; /* NULL: end of the list */
	enum kind kind;
	size_t offset; /* in struct ipc_msg */
	size_t max;    /* of a string, without its terminator */
	const char *doc;
};

struct description {
	enum ipc_type type;
	const char *name;
	enum ipc_role sender;
	size_t nr_fds;
	const struct field *fields;
	size_t nr_fields;
	const char *doc;
};

/* clang-format off */
#define MSG(E, id, code, from, fds, doc)				\
	_Static_assert((code) > 0 && (code) < 128, #E);			\
	_Static_assert((fds) <= IPC_MAX_FDS, #E);			\
	static const struct field fields_##id[] = {
#define FIELD(id, type, name, max, doc)					\
	{ #name, KIND_##type, offsetof(struct ipc_msg, id.name), (max), (doc) },
#define END(E, id)							\
	{ NULL, KIND_u32, 0, 0, NULL } };				\
	_Static_assert(sizeof(fields_##id) / sizeof(struct field) - 1 <= IPC_MAX_FIELDS, #E);
#include "ipc/messages.def"
#undef MSG
#undef FIELD
#undef END

#define MSG(E, id, code, from, fds, doc)				\
	{ IPC_##E, #E, IPC_##from, (fds), fields_##id,			\
	    sizeof(fields_##id) / sizeof(struct field) - 1, (doc) },
#define FIELD(id, type, name, max, doc)
#define END(E, id)
static const struct description descriptions[] = {
#include "ipc/messages.def"
};
#undef MSG
/* clang-format on */

#define NR_MESSAGES (sizeof(descriptions) / sizeof(*descriptions))

/* The switch is here for the compiler: two messages with one code do not pass it. */
static const struct description *
find(uint64_t code)
{
	switch (code) {
/* clang-format off */
#define MSG(E, id, code, from, fds, doc) case IPC_##E:
#include "ipc/messages.def"
#undef MSG
#undef FIELD
#undef END
		/* clang-format on */
		break;
	default:
		return NULL;
	}
	for (size_t i = 0; i < NR_MESSAGES; i++)
		if ((uint64_t)descriptions[i].type == code)
			return &descriptions[i];
	return NULL;
}

/* How long the element at p is, or 0 when it is cut off or not ours to accept. */
static size_t
flat_element(const uint8_t *p, size_t left)
{
	size_t need;

	if (left == 0)
		return 0;
	if (p[0] <= 0x7f)
		need = 1; /* positive fixint */
	else if (p[0] >= 0xcc && p[0] <= 0xcf)
		need = 1 + ((size_t)1 << (p[0] - 0xcc)); /* uint 8, 16, 32, 64 */
	else if (p[0] >= 0xa0 && p[0] <= 0xbf)
		need = 1 + (p[0] & 0x1fU); /* fixstr */
	else if (p[0] == 0xd9 && left >= 2)
		need = 2 + (size_t)p[1]; /* str 8 */
	else
		return 0;
	return need <= left ? need : 0;
}

/* One fixarray of unsigned integers and strings up to 255 bytes, complete, and
 * nothing after it. */
static bool
check_flat(const uint8_t *p, size_t bytes)
{
	if (bytes == 0 || (p[0] & 0xf0) != 0x90)
		return false;
	unsigned elements = p[0] & 0x0fU;
	size_t at = 1;
	for (; elements; elements--) {
		size_t n = flat_element(p + at, bytes - at);

		if (n == 0)
			return false;
		at += n;
	}
	return at == bytes;
}

static bool
is_u32(const msgpack_object *o)
{
	return o->type == MSGPACK_OBJECT_POSITIVE_INTEGER && o->via.u64 <= UINT32_MAX;
}

static bool
decode_field(struct ipc_msg *msg, const struct field *field, const msgpack_object *o)
{
	char *to = (char *)msg + field->offset;

	switch (field->kind) {
	case KIND_u32:
		if (!is_u32(o))
			return false;
		memcpy(to, &(uint32_t){(uint32_t)o->via.u64}, sizeof(uint32_t));
		return true;
	case KIND_u64:
		if (o->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
			return false;
		memcpy(to, &o->via.u64, sizeof(uint64_t));
		return true;
	case KIND_str:
		if (o->type != MSGPACK_OBJECT_STR || o->via.str.size > field->max ||
		    (o->via.str.size && memchr(o->via.str.ptr, '\0', o->via.str.size)))
			return false;
		if (o->via.str.size)
			memcpy(to, o->via.str.ptr, o->via.str.size);
		return true; /* the message was zeroed: it is terminated */
	}
	return false;
}

static enum ipc_error
decode_array(
    struct ipc_msg *ret, const msgpack_object_array *array, enum ipc_role sender, size_t nr_fds)
{
	const struct description *d = NULL;

	if (array->size > 0 && array->ptr[0].type == MSGPACK_OBJECT_POSITIVE_INTEGER)
		d = find(array->ptr[0].via.u64);
	if (!d)
		return IPC_E_CODE;
	if (d->sender != sender)
		return IPC_E_SENDER;
	if (d->nr_fds != nr_fds)
		return IPC_E_FDS;
	if (array->size != d->nr_fields + 2)
		return IPC_E_COUNT;
	if (!is_u32(&array->ptr[1]))
		return IPC_E_FIELD;
	ret->type = d->type;
	ret->seq = (uint32_t)array->ptr[1].via.u64;
	for (size_t i = 0; i < d->nr_fields; i++)
		if (!decode_field(ret, &d->fields[i], &array->ptr[i + 2]))
			return IPC_E_FIELD;
	return IPC_OK;
}

enum ipc_error
ipc_decode(
    struct ipc_msg *ret, const void *frame, size_t bytes, enum ipc_role sender, size_t nr_fds)
{
	enum ipc_error error = IPC_E_ENCODING;
	msgpack_unpacked unpacked;
	size_t used = 0;

	memset(ret, 0, sizeof(*ret));
	if (bytes > IPC_MAX_FRAME_BYTES || !check_flat(frame, bytes))
		return IPC_E_ENCODING;
	msgpack_unpacked_init(&unpacked);
	if (msgpack_unpack_next(&unpacked, frame, bytes, &used) == MSGPACK_UNPACK_SUCCESS &&
	    used == bytes && unpacked.data.type == MSGPACK_OBJECT_ARRAY)
		error = decode_array(ret, &unpacked.data.via.array, sender, nr_fds);
	msgpack_unpacked_destroy(&unpacked);
	return error;
}

/* Where the packer writes: a buffer that does not grow. */
struct sink {
	char *buf;
	size_t used;
	size_t bytes;
};

static int
sink_write(void *data, const char *from, size_t n)
{
	struct sink *sink = data;

	if (n > sink->bytes - sink->used)
		return -1;
	memcpy(sink->buf + sink->used, from, n);
	sink->used += n;
	return 0;
}

static int
encode_field(msgpack_packer *packer, const struct ipc_msg *msg, const struct field *field)
{
	const char *from = (const char *)msg + field->offset;
	uint32_t u32;
	uint64_t u64;
	size_t n;

	switch (field->kind) {
	case KIND_u32:
		memcpy(&u32, from, sizeof(u32));
		return msgpack_pack_uint32(packer, u32);
	case KIND_u64:
		memcpy(&u64, from, sizeof(u64));
		return msgpack_pack_uint64(packer, u64);
	case KIND_str:
		n = strnlen(from, field->max + 1);
		if (n > field->max)
			return -EINVAL;
		return msgpack_pack_str_with_body(packer, from, n);
	}
	return -EINVAL;
}

int
ipc_encode(const struct ipc_msg *msg, void *buf, size_t bytes)
{
	const struct description *d = find((uint64_t)msg->type);
	struct sink sink = {.buf = buf, .bytes = bytes};
	msgpack_packer packer;

	if (!d)
		return -EINVAL;
	msgpack_packer_init(&packer, &sink, sink_write);
	if (msgpack_pack_array(&packer, d->nr_fields + 2) < 0 ||
	    msgpack_pack_uint32(&packer, (uint32_t)d->type) < 0 ||
	    msgpack_pack_uint32(&packer, msg->seq) < 0)
		return -EMSGSIZE;
	for (size_t i = 0; i < d->nr_fields; i++) {
		int r = encode_field(&packer, msg, &d->fields[i]);

		if (r < 0)
			return r == -EINVAL ? r : -EMSGSIZE;
	}
	return (int)sink.used;
}

const char *
ipc_type_name(enum ipc_type type)
{
	const struct description *d = find((uint64_t)type);

	return d ? d->name : "?";
}

enum ipc_role
ipc_type_sender(enum ipc_type type)
{
	const struct description *d = find((uint64_t)type);

	return d ? d->sender : IPC_SUPERVISOR;
}

size_t
ipc_type_fds(enum ipc_type type)
{
	const struct description *d = find((uint64_t)type);

	return d ? d->nr_fds : 0;
}

const char *
ipc_error_text(enum ipc_error error)
{
	switch (error) {
	case IPC_OK:
		return "no error";
	case IPC_E_ENCODING:
		return "not one flat msgpack array";
	case IPC_E_CODE:
		return "unknown message code";
	case IPC_E_SENDER:
		return "a message that this peer must not send";
	case IPC_E_FDS:
		return "wrong number of descriptors";
	case IPC_E_COUNT:
		return "wrong number of fields";
	case IPC_E_FIELD:
		return "a field of the wrong type, range or length";
	case IPC_E_TRUNCATED:
		return "a frame or its descriptors cut short";
	}
	return "?";
}

void
ipc_text_copy(char *dst, size_t bytes, const char *src)
{
	size_t n = strnlen(src, bytes);

	if (n == bytes) {
		n--;
		/* Not in the middle of a UTF-8 sequence: the text becomes JSON later. */
		while (n > 0 && ((unsigned char)src[n] & 0xc0) == 0x80)
			n--;
	}
	memcpy(dst, src, n);
	memset(dst + n, 0, bytes - n);
}

static void
print_fields(FILE *out, const struct description *d)
{
	static const char *const kinds[] = {
	    [KIND_u32] = "u32",
	    [KIND_u64] = "u64",
	    [KIND_str] = "str",
	};

	if (d->nr_fields == 0)
		return;
	fputs("\n| field | type | meaning |\n|---|---|---|\n", out);
	for (const struct field *f = d->fields; f->name; f++) {
		fprintf(out, "| `%s` | %s", f->name, kinds[f->kind]);
		if (f->kind == KIND_str)
			fprintf(out, " up to %zu bytes", f->max);
		fprintf(out, " | %s |\n", f->doc);
	}
}

void
ipc_print_docs(FILE *out)
{
	static const char *const roles[] = {
	    [IPC_SUPERVISOR] = "supervisor to worker",
	    [IPC_WORKER] = "worker to supervisor",
	};

	fprintf(out,
	    "<!-- Printed by ipc/ipc_docs.c from ipc/messages.def: run `make docs`, do not edit. -->\n"
	    "# The protocol between supervisor and worker\n\n"
	    "Protocol number %u. One `SOCK_SEQPACKET` datagram of at most %u bytes is one msgpack\n"
	    "array `[code, seq, field...]`, with the message's descriptors in the same datagram.\n"
	    "The array is a fixarray; its elements are unsigned integers and strings of at most 255\n"
	    "bytes without a NUL. An answer carries the `seq` of its request, an event carries 0.\n\n"
	    "A receiver refuses, in this order and before any handler runs: a datagram or\n"
	    "descriptors cut short, another encoding, an unknown code, a sender that must not send\n"
	    "it, another number of descriptors, another number of fields, a field of another type,\n"
	    "range or length. A refusal costs the sender its link. An answer whose `seq` nobody\n"
	    "waits for any more is dropped.\n\n"
	    "Codes are never reused, because old workers outlive their supervisor. HELLO carries\n"
	    "the protocol number; a supervisor that speaks another refuses the worker.\n\n"
	    "| code | message | direction | descriptors |\n|--:|---|---|--:|\n",
	    IPC_PROTOCOL, IPC_MAX_FRAME_BYTES);
	for (size_t i = 0; i < NR_MESSAGES; i++) {
		const struct description *d = &descriptions[i];

		fprintf(out, "| %d | %s | %s | %zu |\n", (int)d->type, d->name, roles[d->sender],
		    d->nr_fds);
	}
	for (size_t i = 0; i < NR_MESSAGES; i++) {
		const struct description *d = &descriptions[i];

		fprintf(out, "\n## %d %s\n\n%s\n", (int)d->type, d->name, d->doc);
		print_fields(out, d);
	}
}
