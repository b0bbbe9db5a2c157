/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between supervisor and worker: encode, decode, validate, name.
 * Everything here is expanded from ipc/messages.def.  A decoded message holds
 * values only: it owns nothing and is never freed.  No function allocates for a
 * size that the peer names. */
#ifndef IPC_MESSAGE_H
#define IPC_MESSAGE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Raised when an old peer could misunderstand a new one.  A supervisor refuses a
 * worker that speaks another. */
#define IPC_PROTOCOL 1U

#define IPC_MAX_FRAME_BYTES 4096U
#define IPC_MAX_FDS	    4U
#define IPC_MAX_FIELDS	    13U

enum ipc_role { IPC_SUPERVISOR, IPC_WORKER };

enum ipc_type {
#define MSG(E, id, code, from, fds, doc) IPC_##E = (code),
#define FIELD(id, type, name, max, doc)
#define END(E, id)
#include "ipc/messages.def"
#undef MSG
#undef FIELD
#undef END
};

#define IPC_MEMBER_u32(name, max) uint32_t name;
#define IPC_MEMBER_u64(name, max) uint64_t name;
#define IPC_MEMBER_str(name, max) \
	char name[(max) + 1];     \
	_Static_assert((max) <= 255, #name);

#define MSG(E, id, code, from, fds, doc) \
	struct ipc_##id {                \
		uint32_t seq;
#define FIELD(id, type, name, max, doc) IPC_MEMBER_##type(name, max)
#define END(E, id) \
	}          \
	;
#include "ipc/messages.def"
#undef MSG
#undef FIELD
#undef END

struct ipc_msg {
	enum ipc_type type;
	union {
		uint32_t seq; /* the first member of each */
#define MSG(E, id, code, from, fds, doc) struct ipc_##id id;
#define FIELD(id, type, name, max, doc)
#define END(E, id)
#include "ipc/messages.def"
#undef MSG
#undef FIELD
#undef END
	};
};

/* HELLO.sandbox: what confines a worker. */
enum ipc_sandbox {
	IPC_SANDBOX_NO_NEW_PRIVS = 1U << 0,
	IPC_SANDBOX_NO_CAPS = 1U << 1,
	IPC_SANDBOX_SECCOMP = 1U << 2,
	IPC_SANDBOX_LANDLOCK = 1U << 3,
	IPC_SANDBOX_OWN_UID = 1U << 4,
};

/* HELLO.sandbox from bit 16 on: what a worker can do that older ones cannot.  One that cannot must
 * not be sent the message, nor a session that needs it. */
enum ipc_ability {
	IPC_CAN_PICTURE = 1U << 16, /* SESSION_PICTURE; answers the faults of protected pages */
	IPC_CAN_TRACE = 1U << 17,   /* SESSION_TRACE and SESSION_TRACE_STOP */
	IPC_CAN_BE_CONNECTED = 1U << 18, /* SESSION_CONNECT at any time; IPC_SESSION_CONNECTS */
	IPC_CAN_NAME = 1U << 20,	 /* SESSION_IMAGE_NAME */
};

/* SESSION_PICTURE.flags */
enum ipc_picture_flag {
	IPC_PICTURE_NEW = 1U << 0,   /* protect what is dirty: the next one can start from it */
	IPC_PICTURE_SINCE = 1U << 1, /* since says which picture the client has */
};

/* SESSION_OPEN.flags */
enum ipc_session_flag {
	IPC_SESSION_MEMFD = 1U << 0,	    /* the VMM sends the memfd behind its memory too */
	IPC_SESSION_HAS_OVERLAYS = 1U << 1, /* SESSION_OVERLAYS came right before */
	IPC_SESSION_CONNECTS = 1U << 2,	    /* SESSION_CONNECT brings the VMM: do not accept it */
	/* 8 to 10: of the image.  Who does not know them holds the fault, and says nothing. */
	IPC_SESSION_TELL_IMAGE = 1U << 8,   /* the supervisor knows SESSION_IMAGE… */
	IPC_SESSION_IMAGE_POISON = 1U << 9, /* poison what cannot be read, after some tries */
	IPC_SESSION_IMAGE_KILL = 1U << 10,  /* say HOPELESS then: the VMM is to be killed */
	/* Register its memory for write protection if the VMM has not.  Who does not know it
	 * tracks no writes. */
	IPC_SESSION_TRACK = 1U << 16,
};

#define IPC_SESSION_IMAGE_FLAGS \
	(IPC_SESSION_TELL_IMAGE | IPC_SESSION_IMAGE_POISON | IPC_SESSION_IMAGE_KILL)
#define IPC_SESSION_FLAGS \
	(IPC_SESSION_MEMFD | IPC_SESSION_HAS_OVERLAYS | IPC_SESSION_IMAGE_FLAGS | IPC_SESSION_TRACK)

/* SESSION_COMPLETED.outcome */
enum ipc_completion {
	IPC_COMPLETION_DETACHED = 0, /* graduated */
	IPC_COMPLETION_ABORTED = 1,  /* by SESSION_ABORT; still served */
	IPC_COMPLETION_FAILED = 2,   /* still served */
	IPC_COMPLETION_REFUSED = 3,  /* not in a state to complete */
	IPC_COMPLETION_GONE = 4,     /* the VMM exited meanwhile */
};

/* SESSION_ENDED.outcome */
enum ipc_ended {
	IPC_ENDED_GRADUATED = 0,
	IPC_ENDED_REFUSED = 1, /* the handshake was */
	IPC_ENDED_GONE = 2,    /* the VMM exited */
	IPC_ENDED_CLOSED = 3,  /* by SESSION_CLOSE */
};

/* SESSION_ALARM.kind */
enum ipc_alarm {
	IPC_ALARM_IMAGE_READ = 1, /* the image cannot be read; a fault stays pending */
	IPC_ALARM_FILL = 2,	  /* the kernel refuses a fill; a fault stays pending */
};

/* SESSION_IMAGE.what */
enum ipc_image {
	IPC_IMAGE_HEALED = 1,	/* no page waits for it any more */
	IPC_IMAGE_POISONED = 2, /* a page that cannot be read: touching it ends the VMM */
	IPC_IMAGE_HOLDING = 3,	/* the kernel poisons nothing: the fault waits instead */
	IPC_IMAGE_HOPELESS = 4, /* tried often enough: the VMM is to be killed */
};

/* Why a frame was refused.  Zero is no error. */
enum ipc_error {
	IPC_OK = 0,
	IPC_E_ENCODING,	 /* not one flat msgpack array of unsigned integers and strings */
	IPC_E_CODE,	 /* no such message */
	IPC_E_SENDER,	 /* that peer must not send it */
	IPC_E_FDS,	 /* not the number of descriptors that belongs to it */
	IPC_E_COUNT,	 /* not the number of fields */
	IPC_E_FIELD,	 /* a field of the wrong type, out of range, too long, or with a NUL */
	IPC_E_TRUNCATED, /* the datagram or its descriptors were cut short */
};

/* Decodes one datagram that came with nr_fds descriptors.  Checks, in this order:
 * flat and complete with nothing after; code; sender; descriptors; fields. */
enum ipc_error ipc_decode(
    struct ipc_msg *ret, const void *frame, size_t bytes, enum ipc_role sender, size_t nr_fds);

/* Encodes into buf.  Returns the length, or a negative errno: -EINVAL for an
 * unknown type or a string that is too long, -EMSGSIZE when buf is too small. */
int ipc_encode(const struct ipc_msg *msg, void *buf, size_t bytes);

/* "SESSION_OPEN"; "?" for an unknown one. */
const char *ipc_type_name(enum ipc_type type);
const char *ipc_error_text(enum ipc_error error);
enum ipc_role ipc_type_sender(enum ipc_type type);
size_t ipc_type_fds(enum ipc_type type);

/* Copies src into a string field and cuts it to fit: for texts, not for names. */
#define ipc_text(field, src) ipc_text_copy((field), sizeof(field), (src))
void ipc_text_copy(char *dst, size_t bytes, const char *src);

/* Writes PROTOCOL.md. */
void ipc_print_docs(FILE *out);

#endif
