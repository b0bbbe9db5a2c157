/* SPDX-License-Identifier: Apache-2.0 */
/* Users and groups that options name, by name or number. */
#ifndef SUPERVISOR_ACCOUNT_H
#define SUPERVISOR_ACCOUNT_H

#include <sys/types.h>

/* 0, or -ENOENT.  A number needs no entry; without one the group is the same number. */
int account_user(const char *name, uid_t *ret_uid, gid_t *ret_gid);
int account_group(const char *name, gid_t *ret);

#endif
