/* SPDX-License-Identifier: Apache-2.0 */
/* What pagerctl doctor looks at.  Every finding has a remedy where it is not good. */
#ifndef SUPERVISOR_CTL_DOCTOR_H
#define SUPERVISOR_CTL_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "supervisor/ctl/ctl.h"

#define DOCTOR_MAX 64

/* FAIL: a guest cannot be restored or served.  WARN: something is missing, slow or near its end. */
enum doctor_result { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL };

struct doctor_finding {
	const char *check; /* a word or two */
	enum doctor_result result;
	char *detail, *remedy; /* owned; the remedy is NULL when there is nothing to do */
};

struct doctor {
	const struct ctl *ctl;
	const char *root; /* before the path of every file that is looked at, "" but in tests */
	uid_t vmm_uid;	  /* the user that VMMs run as */
	struct doctor_finding findings[DOCTOR_MAX];
	size_t nr;
};

void doctor_fini(struct doctor *d);
/* remedy may be NULL. */
void doctor_say(struct doctor *d, const char *check, enum doctor_result result, const char *remedy,
    const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* Reads a small file, without the newline at its end.  0 or a negative errno. */
int doctor_read(const struct doctor *d, const char *path, char *buf, size_t bytes);
/* A file that holds one number, or the word max for UINT64_MAX.  0 or a negative errno. */
int doctor_read_number(const struct doctor *d, const char *path, uint64_t *ret);
/* Whether a user may read and write a file: 0, -EACCES, or what stat() said.  An ACL is asked
 * for too, and what it says is not known: -EAGAIN. */
int doctor_access(const struct doctor *d, const char *path, uid_t uid);

/* The groups of checks.  doctor_limits: of pagerd, whose process it is. */
void doctor_kernel(struct doctor *d);
void doctor_devices(struct doctor *d);
void doctor_host(struct doctor *d);
void doctor_limits(struct doctor *d, pid_t pid, uint64_t max_sessions);
void doctor_pagerd(struct doctor *d);

#endif
