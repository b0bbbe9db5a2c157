/* SPDX-License-Identifier: Apache-2.0 */
/* ● The only user of libcap.  Privileges are raised by need and for a scope:
 *
 *	scoped_priv enum priv held = priv_raise(PRIV_SPAWN);
 *
 * Whatever way out the scope takes, the capabilities go with it.  Needs nest.  What
 * this process never had is not raised: the call that needs it fails with EPERM and
 * its caller says so. */
#ifndef SUPERVISOR_PRIVS_H
#define SUPERVISOR_PRIVS_H

#include <stdbool.h>
#include <stddef.h>

/* clang-format off */
/*	PRIV(NAME, "what needs it", capabilities…) */
#define PRIV_TABLE(PRIV)								\
	PRIV(SPAWN, "start a worker as another user", CAP_SETUID, CAP_SETGID)		\
	PRIV(CONFINE, "bound what a worker can ever have", CAP_SETPCAP, CAP_SYS_RESOURCE)\
	PRIV(KILL, "signal a worker of another user", CAP_KILL)				\
	PRIV(CHOWN, "give a socket to the user who may connect", CAP_CHOWN)		\
	PRIV(CLIENT_FILES, "open a file with the identity of a client", CAP_SETUID, CAP_SETGID)\
	PRIV(ROOT_FILES, "open a file for a client that is root", CAP_DAC_READ_SEARCH)
/* clang-format on */

enum priv {
	PRIV_NONE,
#define PRIV_ENUM(NAME, doc, ...) PRIV_##NAME,
	PRIV_TABLE(PRIV_ENUM)
#undef PRIV_ENUM
	    PRIV_COUNT
};

/* Reduces the permitted set to the union of all needs, empties the inheritable and
 * the effective set.  0 or a negative errno.  Call it before the first priv_raise(). */
int privs_init(void);

/* The need that is held now; give it back by priv_lower() or the scope. */
enum priv priv_raise(enum priv need);
void priv_lower(enum priv *held);

#define scoped_priv __attribute__((cleanup(priv_lower), unused))

/* Every capability of the need is permitted. */
bool priv_is_available(enum priv need);

/* "start a worker as another user" */
const char *priv_doc(enum priv need);

/* For a forked child that serves these needs alone: gives up what the others took.  0 or a
 * negative errno. */
int privs_keep(const enum priv *kept, size_t nr);

/* For a forked child: empties the bounding set, before it gives up its user; then,
 * last, every other set.  0 or a negative errno. */
int privs_drop_bounding(void);
int privs_drop_all(void);

#endif
