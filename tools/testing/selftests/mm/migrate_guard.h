/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The guardian: a process that outlives the test and puts the machine back.
 *
 * guard_start() forks it; it sleeps on a pipe whose other end the test and all
 * its children hold, so it wakes when the last of them is gone, however it
 * went. Then it writes back, newest first, what guard_undo() was told.
 *
 * There is one at a time: guard_start() waits for that of another test, so no
 * setting is to be read before it returns. guard_lacks() does the same for
 * FIXTURE_SETUP, and returns NULL or a line that says why that cannot be, or
 * which of root's rights are missing. From then on the test dies with the one
 * that started it.
 * guard_stop() waits until all is written back. guard_leave() is for a test
 * whose processes do not end: all is written back without waiting for them.
 * guard_end() is for FIXTURE_TEARDOWN: it does what fits, and returns NULL or a
 * line for EXPECT, that says what the test has left behind. A failure there
 * counts, and takes the place of a SKIP.
 *
 * guard_left() says whether a test before, of the same program, did the latter.
 */
#ifndef _MIGRATE_GUARD_H
#define _MIGRATE_GUARD_H

#include <stdbool.h>

int guard_start(void);
const char *guard_lacks(void);
const char *rights_lack(void);
int guard_undo(const char *path, const char *value);
void guard_stop(void);
void guard_leave(void);
const char *guard_end(bool gone);
bool guard_left(void);

/* Whether guard_undo() was told of @path, with any value. */
bool guard_has(const char *path);

/*
 * What a write to nr_hugepages sets, @pool being its path. A read of it counts
 * surplus pages too, which belong to somebody else and come and go by themselves.
 */
long pool_persistent(const char *pool);

/*
 * What is to be written to the file @state of a block that is online, to have it
 * in the same zone again. Unless the kernel says that it is another: Movable.
 */
const char *block_zone(const char *state);

/*
 * Whether the kernel has died of something: an oops or a BUG, since it started.
 * It may go on, with nobody but the process gone that it happened to, or with a
 * lock that is held for ever. guard_end() tells of one since rights_lack() or
 * guard_lacks() was asked.
 */
bool kernel_has_died(void);

/*
 * For a test that may do harm, @how, to a kernel with the defect: NULL if the
 * user allows it by HUGETLB_PMD_CHURN=1, or a line that says how to.
 */
const char *churn_lacks(const char *how);

#endif /* _MIGRATE_GUARD_H */
