/* SPDX-License-Identifier: Apache-2.0 */
/* Prints PROTOCOL.md. */
#include <stdio.h>

#include "ipc/message.h"

int
main(void)
{
	ipc_print_docs(stdout);
	return fflush(stdout) == 0 ? 0 : 1;
}
