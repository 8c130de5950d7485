/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The monitor of QEMU (QMP), on a serial line of the virtual machine: for what
 * nothing inside of it can ask for.
 */
#ifndef _MIGRATE_QMP_H
#define _MIGRATE_QMP_H

#include <stdbool.h>
#include <stddef.h>

/* The line @path: a file descriptor, or -1 if no monitor answers there. */
int qmp_open(const char *path);

/* Whether @command has an answer that is no error. The last line is in @line. */
bool qmp_ask(int fd, const char *command, char *line, size_t len);

#endif /* _MIGRATE_QMP_H */
