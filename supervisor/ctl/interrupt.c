/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/ctl/interrupt.h"

#include <signal.h>

#define SIGNAL_STATUS 128

static volatile sig_atomic_t caught;

static void
on_signal(int number)
{
	caught = number;
}

void
interrupt_catch(void)
{
	struct sigaction action = {.sa_handler = on_signal};

	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

int
interrupt_caught(void)
{
	return caught;
}

void
interrupt_forget(void)
{
	caught = 0;
}

enum exitcode
interrupt_exitcode(void)
{
	return (enum exitcode)(SIGNAL_STATUS + caught);
}
