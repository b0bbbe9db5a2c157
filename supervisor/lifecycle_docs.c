/* SPDX-License-Identifier: Apache-2.0 */
/* Prints packaging/doc/lifecycle.md. */
#include <stdio.h>

#include "supervisor/session_fsm.h"

int
main(void)
{
	session_fsm_write_docs(stdout);
	return fflush(stdout) == 0 ? 0 : 1;
}
