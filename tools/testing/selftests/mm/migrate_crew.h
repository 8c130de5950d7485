/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Crews of processes, how long those are waited for that may be slow or stuck, and
 * where they are then.
 */
#ifndef _MIGRATE_CREW_H
#define _MIGRATE_CREW_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "kselftest.h"

/*
 * The processes that a test forks, in that order.
 *
 * crew_fork() returns what fork(2) does. The child dies with the test, and has
 * none of its signal handlers. crew_nobody() makes it an ordinary user who still
 * dies with the test; it returns 0 or an error number. crew_give_up() is for a
 * child that cannot go on: it leaves the error number in memory that the test
 * shares, and exits.
 */
#define CREW_MAX	80

struct crew {
	pid_t pids[CREW_MAX];	/* 0 for one that has ended */
	int status[CREW_MAX];	/* as wait(2) said, of one that has ended */
	int nr;
	bool waited;	/* in vain, and told where those are that are left */
};

/* Why a test is skipped of which vm_event("oom_kill") grew, and one was killed. */
#define OOM_KILLED	\
	"inconclusive: the kernel was short of memory, and killed a process"

pid_t crew_fork(struct crew *crew);
int crew_nobody(void);
__noreturn void crew_give_up(int *word, int error);

/*
 * How many have ended so far, and how many of those by SIGKILL; whether all
 * have, within @ms milliseconds; and the same with those killed that are left.
 * One that is stuck in the kernel does not end. As long as one is runnable, and
 * may be waiting for a CPU, that takes up to three times as long. The first time
 * that some are left, it is told where they are. crew_kill_one() kills the one
 * that was forked @nr others later than the first.
 */
int crew_ended(struct crew *crew);
int crew_killed(const struct crew *crew);
bool crew_wait(struct crew *crew, int ms);
bool crew_kill(struct crew *crew, int ms);
bool crew_kill_one(struct crew *crew, int nr, int ms);

/*
 * The end of a wait for @nr processes or threads, @pids, of which 0 is none: for an
 * answer, or whatever they are to do. To be asked again and again, ten times a
 * second or more often, with a limit that is all zeroes at first. Returns whether to
 * wait on: @ms milliseconds since then, and up to three times as long while one of
 * them is runnable, and may be waiting for a CPU.
 */
struct wait_limit {
	uint64_t start;		/* when it was asked first */
	uint64_t seen;		/* when one was runnable, at the last such look */
};

bool within_limit(struct wait_limit *limit, const pid_t *pids, int nr, int ms);

/*
 * How many of those that have ended did so otherwise than by _exit(0): one that an
 * oops has killed may have been the last to end, and have left no error.
 */
int crew_failed(const struct crew *crew);

/*
 * For FIXTURE_TEARDOWN: kill those that are left, within @ms milliseconds, close
 * @fd if it is open, and return what guard_end() does.
 */
const char *crew_end(struct crew *crew, int fd, int ms);

/* What the kernel knows of a process that is stuck, and where that is. */
void tell_where(pid_t pid);

#endif /* _MIGRATE_CREW_H */
