/* SPDX-License-Identifier: GPL-2.0 */
/* Loop devices, for tests that need a disk which is in memory. */
#ifndef _MIGRATE_LOOP_H
#define _MIGRATE_LOOP_H

#define LOOP_PATH_LEN	32

/*
 * A loop device that has @file for a disk, and goes with its last user. @path is
 * where it is, @flags are for open(2). Returns a descriptor or -errno. @file need
 * not stay open.
 */
int loop_open(int file, char path[LOOP_PATH_LEN], int flags);

#endif /* _MIGRATE_LOOP_H */
