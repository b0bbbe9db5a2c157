/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/config_check.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "common/log.h"
#include "supervisor/account.h"

void
config_check_roots(const struct options *options)
{
	struct stat st;

	for (size_t i = 0; i < options->image_root.nr; i++) {
		const char *root = options->image_root.items[i];

		int error = 0;

		if (stat(root, &st) < 0)
			error = errno;
		else if (!S_ISDIR(st.st_mode))
			error = ENOTDIR;
		/* Images are opened as the client, who may enter where pagerd may not. */
		if (error != 0 && error != EACCES)
			log_warning("image-root %s: %s; no image below it can be opened", root,
			    strerror(error));
	}
}

bool
config_check(const struct options *options)
{
	bool is_right = true;
	uid_t uid;
	gid_t gid;

	if (account_user(options->worker_user, &uid, &gid) < 0) {
		log_err("worker-user %s: there is no such user", options->worker_user);
		is_right = false;
	} else if (uid == 0) {
		log_err("worker-user %s: a worker must not be root", options->worker_user);
		is_right = false;
	}
	if (options->admin_group[0] != '\0' && account_group(options->admin_group, &gid) < 0) {
		log_err("admin-group %s: there is no such group", options->admin_group);
		is_right = false;
	}
	config_check_roots(options);
	return is_right;
}
