/* SPDX-License-Identifier: Apache-2.0 */
/* Points that a tracer can hook in a running process: an instruction that does nothing, and a
 * note in the ELF file.  Nothing at all where <sys/sdt.h> was not there at the build.  pagerd(8)
 * lists them. */
#ifndef COMMON_PROBE_H
#define COMMON_PROBE_H

#if HAVE_SDT
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#include <sys/sdt.h>
#pragma GCC diagnostic pop
#ifdef __clang__
/* Its macros name no argument for their dots, where they are used. */
#pragma clang diagnostic ignored "-Wgnu-zero-variadic-macro-arguments"
#endif
#define PROBE2(name, a, b)	 DTRACE_PROBE2(pagerd, name, a, b)
#define PROBE4(name, a, b, c, d) DTRACE_PROBE4(pagerd, name, a, b, c, d)
#else
#define PROBE2(name, a, b)	 ((void)0)
#define PROBE4(name, a, b, c, d) ((void)0)
#endif

#endif
