/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/image_policy.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "ipc/message.h"

static const struct {
	const char *word;
	uint32_t flag;
} policies[] = {
    [IMAGE_HOLD] = {"hold", 0},
    [IMAGE_POISON] = {"poison", IPC_SESSION_IMAGE_POISON},
    [IMAGE_KILL] = {"kill", IPC_SESSION_IMAGE_KILL},
};

int
image_policy_parse(const char *word, enum image_policy *ret)
{
	for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
		if (strcmp(policies[i].word, word) == 0) {
			*ret = (enum image_policy)i;
			return 0;
		}
	}
	return -EINVAL;
}

const char *
image_policy_word(enum image_policy policy)
{
	return policies[policy].word;
}

uint32_t
image_policy_flags(enum image_policy policy)
{
	return IPC_SESSION_TELL_IMAGE | policies[policy].flag;
}

enum image_policy
image_policy_of(uint32_t flags)
{
	if (flags & IPC_SESSION_IMAGE_KILL)
		return IMAGE_KILL;
	return flags & IPC_SESSION_IMAGE_POISON ? IMAGE_POISON : IMAGE_HOLD;
}
