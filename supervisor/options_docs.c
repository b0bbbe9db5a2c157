/* SPDX-License-Identifier: Apache-2.0 */
/* Prints the option section of pagerd(8) or, told "keys", of pagerd.conf(5). */
#include <string.h>

#include "supervisor/options.h"

int
main(int argc, char *argv[])
{
	options_print_mdoc(stdout, argc > 1 && strcmp(argv[1], "keys") == 0);
	return fflush(stdout) == 0 ? 0 : 1;
}
