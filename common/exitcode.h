/* SPDX-License-Identifier: Apache-2.0 */
/* Exit codes, shared by the process that exits and the one that reads them. */
#ifndef COMMON_EXITCODE_H
#define COMMON_EXITCODE_H

enum exitcode {
	EXITCODE_OK = 0,
	EXITCODE_FAILED = 1,	  /* the request was refused or failed (pagerctl) */
	EXITCODE_USAGE = 2,	  /* bad command line or configuration */
	EXITCODE_UNREACHABLE = 3, /* pagerctl: no supervisor answers */
	EXITCODE_NOT_FOUND = 4,	  /* pagerctl: no such session or version */
	EXITCODE_TIMEOUT = 5,	  /* pagerctl: a deadline passed */
	EXITCODE_CONFLICT = 6,	  /* pagerctl: the object is in the wrong state */
	EXITCODE_FATAL = 70,	  /* a broken invariant, or start-up failed */
	EXITCODE_SANDBOX = 71,	  /* worker: a confinement step failed */
	EXITCODE_PROTOCOL = 72,	  /* worker: the supervisor sent what it must not */
	EXITCODE_SELFTEST = 73,	  /* worker: the userfaultfd round trip failed */
	EXITCODE_EXEC = 74,	  /* worker: could not be executed */
};

#endif
