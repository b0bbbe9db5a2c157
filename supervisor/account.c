/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/account.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stddef.h>
#include <stdint.h>

#include "common/num.h"

#define MAX_ID (UINT32_MAX - 1)

int
account_user(const char *name, uid_t *ret_uid, gid_t *ret_gid)
{
	const struct passwd *entry = getpwnam(name);
	uint64_t id;

	if (entry == NULL && num_parse_u64(name, 0, MAX_ID, &id) == 0) {
		*ret_uid = (uid_t)id;
		*ret_gid = (gid_t)id;
		entry = getpwuid((uid_t)id);
		if (entry == NULL)
			return 0;
	}
	if (entry == NULL)
		return -ENOENT;
	*ret_uid = entry->pw_uid;
	*ret_gid = entry->pw_gid;
	return 0;
}

int
account_group(const char *name, gid_t *ret)
{
	const struct group *entry = getgrnam(name);
	uint64_t id;

	if (entry != NULL) {
		*ret = entry->gr_gid;
		return 0;
	}
	if (num_parse_u64(name, 0, MAX_ID, &id) < 0)
		return -ENOENT;
	*ret = (gid_t)id;
	return 0;
}
