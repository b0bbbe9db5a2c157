/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fault.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/num.h"

#define NAME_BYTES 64

enum fault_action { ACTION_NONE, ACTION_ERR, ACTION_KILL, ACTION_CRASH, ACTION_PAUSE, ACTION_HOLD };

struct fault_state {
	enum fault_action action; /* ACTION_NONE: not armed */
	uint64_t nth;		  /* strikes at this pass; 0: at each */
	char name[NAME_BYTES];	  /* whose passes count; empty: all */
	_Atomic uint64_t passes;  /* fault threads pass here too */
};

bool fault_armed;

static struct fault_state states[FAULT_COUNT];

static const char *const names[] = {
#define FAULT(NAME, doc) [FAULT_##NAME] = #NAME,
#include "common/fault.def"
#undef FAULT
};

static int
parse_action(const char *word, enum fault_action *ret)
{
	if (!word || strcmp(word, "err") == 0)
		*ret = ACTION_ERR;
	else if (strcmp(word, "kill") == 0)
		*ret = ACTION_KILL;
	else if (strcmp(word, "crash") == 0)
		*ret = ACTION_CRASH;
	else if (strcmp(word, "pause") == 0)
		*ret = ACTION_PAUSE;
	else if (strcmp(word, "hold") == 0)
		*ret = ACTION_HOLD;
	else
		return -EINVAL;
	return 0;
}

/* NAME[=TEXT][:N][!action]; cuts the word up in place. */
static int
parse_one(char *word)
{
	char *action_word = strchr(word, '!');
	enum fault_action action;
	uint64_t nth = 1;

	if (action_word)
		*action_word++ = '\0';
	if (parse_action(action_word, &action) < 0)
		return -EINVAL;
	char *number = strchr(word, ':');
	if (number)
		*number++ = '\0';
	if (number && num_parse_u64(number, 0, UINT64_MAX, &nth) < 0)
		return -EINVAL;
	char *name = strchr(word, '=');
	if (name)
		*name++ = '\0';
	if (name && (*name == '\0' || strlen(name) >= NAME_BYTES))
		return -EINVAL;
	for (size_t i = 0; i < FAULT_COUNT; i++) {
		if (strcmp(word, names[i]) != 0)
			continue;
		states[i].action = action;
		states[i].nth = nth;
		snprintf(states[i].name, NAME_BYTES, "%s", name ? name : "");
		atomic_store(&states[i].passes, 0);
		fault_armed = true;
		return 0;
	}
	return -EINVAL;
}

/* Before the first thread: it has to be blocked in each, or it would end the process. */
static void
hold_signal(sigset_t *ret)
{
	sigemptyset(ret);
	sigaddset(ret, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, ret, NULL);
}

static void
hold(void)
{
	sigset_t set;

	hold_signal(&set);
	while (sigwaitinfo(&set, NULL) < 0)
		; /* EINTR */
}

int
fault_init(void)
{
	const char *text = getenv("PAGER_FAULT");
	char copy[1024], *rest = copy;

	fault_armed = false;
	for (size_t i = 0; i < FAULT_COUNT; i++)
		states[i].action = ACTION_NONE;
	if (!text || !*text)
		return 0;
	if (strlen(text) >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, text, strlen(text) + 1);
	for (char *word; (word = strsep(&rest, ","));) {
		int r = parse_one(word);

		if (r < 0)
			return r;
	}
	if (fault_armed)
		hold_signal(&(sigset_t){0});
	return 0;
}

bool
fault_strike(enum fault_point point, const char *name)
{
	struct fault_state *state = &states[point];

	if (state->action == ACTION_NONE)
		return false;
	if (state->name[0] != '\0' && (!name || strcmp(name, state->name) != 0))
		return false;
	uint64_t pass = atomic_fetch_add(&state->passes, 1) + 1;
	if (state->nth != 0 && pass != state->nth)
		return false;
	switch (state->action) {
	case ACTION_KILL:
		kill(getpid(), SIGKILL);
		return false;
	case ACTION_CRASH:
		abort();
	case ACTION_PAUSE:
		raise(SIGSTOP);
		return false;
	case ACTION_HOLD:
		hold();
		return false;
	case ACTION_ERR:
	case ACTION_NONE:
		break;
	}
	return true;
}
