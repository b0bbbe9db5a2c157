/* SPDX-License-Identifier: Apache-2.0 */
/* Members of bodies and of answers that several commands have. */
#include <stdlib.h>
#include <string.h>

#include "common/num.h"
#include "common/scope.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/text.h"

void
ctl_print_row(const char *name, const char *value)
{
	char text[4200];

	snprintf(text, sizeof(text), "%s", value);
	text_make_printable(text);
	if (*text)
		printf("%-12s %s\n", name, text);
}

bool
ctl_add_member(
    json_t *body, const char *member, const char *flag, const char *text, enum value_kind kind)
{
	uint64_t number = 0;
	int r = 0;

	if (!text)
		return true;
	if (kind == VALUE_TEXT) {
		if (json_object_set_new(body, member, json_string(text)) == 0)
			return true;
		ctl_complain("%s: the value is not UTF-8", flag);
		return false;
	}
	if (kind == VALUE_NUMBER)
		r = num_parse_u64(text, 0, UINT32_MAX, &number);
	else if (kind == VALUE_BYTES)
		r = num_parse_bytes(text, 0, UINT32_MAX, &number);
	else
		r = num_parse_ms(text, 1, UINT64_C(3600) * 1000, &number);
	if (r < 0) {
		ctl_complain("%s: %s is no %s", flag, text,
		    kind == VALUE_NUMBER      ? "number"
			: kind == VALUE_BYTES ? "size, such as 64K"
					      : "duration up to 1h, such as 30s");
		return false;
	}
	json_object_set_new(body, member, json_integer((json_int_t)number));
	return true;
}

bool
ctl_add_path(json_t *body, const char *member, const char *flag, const char *path)
{
	scoped_free char *resolved = path ? realpath(path, NULL) : NULL;

	return ctl_add_member(body, member, flag, resolved ? resolved : path, VALUE_TEXT);
}
