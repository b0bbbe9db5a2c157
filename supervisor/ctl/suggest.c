/* SPDX-License-Identifier: Apache-2.0 */
/* What may have been meant by an id or a version that is not there. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/xalloc.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/exchange.h"
#include "supervisor/ctl/text.h"

/* An answer that takes longer is not worth waiting for. */
#define ASK_MS UINT64_C(1000)

struct list {
	const char *prefix, *target, *members, *name;
};

static const struct list lists[] = {
    {"/sessions/", "/sessions", "sessions", "id"},
    {"/templates/", "/templates", "templates", "name"},
    {"/", "/versions", "versions", "version"},
};

static const char *
nearest(const json_t *members, const char *name, const char *word)
{
	const char *best = NULL;
	const json_t *one;
	size_t i;

	json_array_foreach(members, i, one)
	{
		const char *other = ctl_text(one, name);

		if (*ctl_text(one, "outcome") || !text_is_near(word, other))
			continue;
		if (!best || text_distance(word, other) < text_distance(word, best))
			best = other;
	}
	return best;
}

void
ctl_suggest(const struct ctl *ctl, const char *target, const char *word)
{
	const struct list *list = lists;
	struct exchange get = {.socket_path = ctl->socket_path, .method = "GET"};
	scoped_answer struct answer answer = {0};
	const char *meant;

	if (!word)
		return;
	while (strncmp(target, list->prefix, strlen(list->prefix)) != 0)
		list++;
	/* POST /sessions names a file, which is none of ours to know. */
	if (strcmp(target, "/sessions") == 0)
		return;
	get.target = list->target;
	get.deadline_ns = clock_now_ns() + ASK_MS * NS_PER_MS;
	exchange_run(&get, &answer);
	if (answer.status != 200)
		return;
	meant = nearest(json_object_get(answer.json, list->members), list->name, word);
	if (meant && strcmp(meant, word) != 0)
		ctl_complain("did you mean %s?", meant);
}
