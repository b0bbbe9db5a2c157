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

int
interrupt_forget(void)
{
	int number = caught;

	caught = 0;
	return number;
}

void
interrupt_again(int number)
{
	if (!caught)
		caught = number;
}

enum exitcode
interrupt_exitcode(void)
{
	return (enum exitcode)(SIGNAL_STATUS + caught);
}
