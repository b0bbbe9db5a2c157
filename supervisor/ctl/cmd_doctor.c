/* SPDX-License-Identifier: Apache-2.0 */
/* doctor: what is missing on this host, and what to do about it. */
#include <errno.h>
#include <unistd.h>

#include "common/num.h"
#include "supervisor/ctl/doctor.h"

static const char *const words[] = {
    [DOCTOR_OK] = "ok",
    [DOCTOR_WARN] = "warn",
    [DOCTOR_FAIL] = "fail",
};

static const char *const escapes[] = {
    [DOCTOR_OK] = "\033[32m",
    [DOCTOR_WARN] = "\033[33m",
    [DOCTOR_FAIL] = "\033[31m",
};

static size_t
count(const struct doctor *d, enum doctor_result result)
{
	size_t n = 0;

	for (size_t i = 0; i < d->nr; i++)
		n += d->findings[i].result == result;
	return n;
}

static void
print_json(const struct doctor *d)
{
	json_t *list = json_array(), *json;

	for (size_t i = 0; i < d->nr; i++) {
		const struct doctor_finding *f = &d->findings[i];

		json_array_append_new(list,
		    json_pack("{s:s, s:s, s:s, s:s?}", "check", f->check, "result",
			words[f->result], "detail", f->detail, "remedy", f->remedy));
	}
	json = json_pack("{s:b, s:o}", "ok", count(d, DOCTOR_FAIL) == 0, "findings", list);
	ctl_print_json(json);
	json_decref(json);
}

static void
print_findings(const struct doctor *d)
{
	size_t failed = count(d, DOCTOR_FAIL), warned = count(d, DOCTOR_WARN);

	for (size_t i = 0; i < d->nr; i++) {
		const struct doctor_finding *f = &d->findings[i];
		bool painted = d->ctl->colour;

		printf("%s%-4s%s  %-11s  %s\n", painted ? escapes[f->result] : "", words[f->result],
		    painted ? "\033[0m" : "", f->check, f->detail);
		if (f->remedy)
			printf("%-4s  %-11s  -> %s\n", "", "", f->remedy);
	}
	if (failed)
		printf("\n%zu failed, %zu to look at\n", failed, warned);
	else if (warned)
		printf("\nguests can be restored; %zu to look at\n", warned);
	else
		puts("\nall is well");
}

enum exitcode
ctl_doctor(const struct ctl *ctl)
{
	struct doctor d = {.ctl = ctl, .root = "", .vmm_uid = geteuid()};
	uint64_t uid;
	enum exitcode code;

	if (ctl->flags.vmm_uid) {
		if (num_parse_u64(ctl->flags.vmm_uid, 0, UINT32_MAX - 1, &uid) < 0) {
			ctl_complain("--vmm-uid: %s is no number", ctl->flags.vmm_uid);
			return EXITCODE_USAGE;
		}
		d.vmm_uid = (uid_t)uid;
	}
	doctor_kernel(&d);
	doctor_devices(&d);
	doctor_host(&d);
	doctor_pagerd(&d);
	if (ctl->json)
		print_json(&d);
	else
		print_findings(&d);
	code = count(&d, DOCTOR_FAIL) ? EXITCODE_FAILED : EXITCODE_OK;
	doctor_fini(&d);
	return code;
}
