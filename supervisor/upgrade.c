/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/upgrade.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/version.h"
#include "common/xalloc.h"
#include "supervisor/child.h"
#include "supervisor/handoff.h"
#include "supervisor/supervisor.h"

struct upgrade {
	char version[VERSION_BYTES];
	struct child
	    *child; /* borrowed: the fleet keeps it until upgrade_check() has seen its end */
	upgrade_done_fn done; /* NULL: nobody waits any more */
	void *arg;
	bool handoff;
};

int
upgrade_start(struct supervisor *sup, const char *version, upgrade_done_fn done, void *arg,
    char *why, size_t why_bytes)
{
	struct upgrade *upgrade;
	struct child *child;
	int r = fleet_check_installed(&sup->fleet, version, why, why_bytes);

	if (r < 0)
		return r;
	if (sup->upgrade != NULL) {
		snprintf(why, why_bytes, "an upgrade to %s runs already; wait for its end",
		    sup->upgrade->version);
		return -EBUSY;
	}
	if (sup->stopping) {
		snprintf(why, why_bytes, "pagerd is stopping");
		return -EBUSY;
	}
	r = fleet_start(&sup->fleet, version, &child, why, why_bytes);
	if (r < 0)
		return r;
	upgrade = xcalloc(1, sizeof(*upgrade));
	snprintf(upgrade->version, sizeof(upgrade->version), "%s", version);
	upgrade->child = child;
	upgrade->done = done;
	upgrade->arg = arg;
	sup->upgrade = upgrade;
	child_log(child, LOG_LEVEL_NOTICE, "upgrade: becomes current when it is ready");
	return 0;
}

static void
finish(struct supervisor *sup, int error, const char *why)
{
	struct upgrade *upgrade = sup->upgrade;

	/* First, so that done may start the next one. */
	sup->upgrade = NULL;
	if (upgrade->done != NULL)
		upgrade->done(upgrade->arg, error, why);
	free(upgrade);
}

static void
fail(struct supervisor *sup, const char *why)
{
	log_err("upgrade: version %s did not start: %s; version %s stays current",
	    sup->upgrade->version, why,
	    sup->fleet.current[0] != '\0' ? sup->fleet.current : "none");
	finish(sup, -ECHILD, why);
}

void
upgrade_check(struct supervisor *sup)
{
	const struct child *child;
	char why[256];

	if (sup->upgrade == NULL)
		return;
	child = sup->upgrade->child;
	if (child->state == CHILD_GONE) {
		fail(sup, child->obituary);
		return;
	}
	if (child_is_draining(child)) {
		fail(sup, "it was told to drain meanwhile");
		return;
	}
	if (!child_is_ready(child))
		return; /* still starting, or on its way to GONE */
	fleet_set_current(&sup->fleet, sup->upgrade->version);
	if (sup->upgrade->handoff &&
	    handoff_version(sup, NULL, sup->upgrade->version, NULL, NULL, why, sizeof(why)) < 0)
		log_warning("upgrade: %s; sessions stay where they are", why);
	snprintf(why, sizeof(why), "version %s is current", sup->upgrade->version);
	finish(sup, 0, why);
}

bool
upgrade_awaits(const struct supervisor *sup, const struct child *child)
{
	return sup->upgrade != NULL && sup->upgrade->child == child;
}

void
upgrade_forget(struct supervisor *sup, void *arg, bool handoff)
{
	if (sup->upgrade == NULL || sup->upgrade->arg != arg)
		return;
	sup->upgrade->done = NULL;
	sup->upgrade->handoff = handoff;
}

void
upgrade_fini(struct supervisor *sup)
{
	free(sup->upgrade);
	sup->upgrade = NULL;
}
