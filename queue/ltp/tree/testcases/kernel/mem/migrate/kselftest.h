/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files migrate_* use of the kernel's header of this name, so that these
 * files are the same here and there.
 */
#ifndef MIGRATE_KSELFTEST_H
#define MIGRATE_KSELFTEST_H

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef ARRAY_SIZE
#define ARRAY_SIZE(arr) (sizeof(arr) / sizeof((arr)[0]))
#endif

#ifndef __noreturn
#define __noreturn __attribute__((__noreturn__))
#endif

/* Of a process that is stuck; no test of LTP ends with it. */
static inline __attribute__((__format__(printf, 1, 2)))
void ksft_print_msg(const char *msg, ...)
{
	va_list args;

	va_start(args, msg);
	vfprintf(stderr, msg, args);
	va_end(args);
}

/* A built-in function that the checker of `make check` does not know. */
#if defined(__CHECKER__) && defined(__x86_64__)
unsigned long long __builtin_ia32_rdtsc(void);
#endif

#endif /* MIGRATE_KSELFTEST_H */
