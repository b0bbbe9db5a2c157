/* SPDX-License-Identifier: Apache-2.0 */
/* Prints the option section of pagerd(8). */
#include "supervisor/options.h"

int
main(void)
{
	options_print_mdoc(stdout);
	return fflush(stdout) == 0 ? 0 : 1;
}
