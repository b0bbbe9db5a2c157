/* SPDX-License-Identifier: Apache-2.0 */
/* Prints packaging/doc/metrics.md. */
#include <stdio.h>

#include "supervisor/metrics.h"

int
main(void)
{
	metrics_write_docs(stdout);
	return fflush(stdout) == 0 ? 0 : 1;
}
