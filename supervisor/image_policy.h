/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of a VM whose image gives no bytes for a page that it needs.  Never zeros. */
#ifndef SUPERVISOR_IMAGE_POLICY_H
#define SUPERVISOR_IMAGE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

enum image_policy {
	IMAGE_HOLD,   /* the fault waits, is tried again, and an alarm is raised */
	IMAGE_POISON, /* after some tries touching the page ends the VMM */
	IMAGE_KILL,   /* after some tries the VMM is killed */
};

/* "hold", "poison" or "kill".  0, or -EINVAL. */
int image_policy_parse(const char *word, enum image_policy *ret);
const char *image_policy_word(enum image_policy policy);

/* As bits of enum ipc_session_flag, and back. */
uint32_t image_policy_flags(enum image_policy policy);
enum image_policy image_policy_of(uint32_t flags);

#endif
