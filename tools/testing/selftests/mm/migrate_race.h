/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Processes of a test that do things at the same time, over and over, until they
 * are told to end: how they are told, and whether all of them have come to their
 * end, or one is stuck in the kernel.
 */
#ifndef _MIGRATE_RACE_H
#define _MIGRATE_RACE_H

#include "migrate_util.h"

/*
 * Memory for what a test counts, as share_memory() has it. Those that are forked from
 * then on can be told to end by race_stop(), which also wakes those who sleep until
 * then, and are asked about by race_error() and the like.
 */
void *race_begin(size_t size);
void race_stop(void);

/*
 * For one that was forked: is it to end? give_up() is crew_give_up() for a call that
 * failed, and be_nobody() goes on as an ordinary user, or gives up.
 */
bool stopped(void);
__noreturn void give_up(int error);
void be_nobody(void);

/*
 * Hold i_mmap_rwsem of a file, most of the time, until the end. @len bytes of it are
 * mapped for that at @addr, which must not cover a PUD: then they share no table, and
 * keep that. Nobody may take their first page away. @held counts.
 */
__noreturn void hold_main(int fd, char *addr, size_t len, off_t offset,
			  unsigned long *held);

/* Let a race run. What it is to be like: */
struct race {
	struct crew *crew;
	const unsigned long *steps;	/* who is not stuck counts up */
	const unsigned long *met;	/* NULL, or it is not over before @enough */
	unsigned long enough;
	int seconds;
	int max_seconds;	/* until there is enough, on a busy machine */
	int stuck_ms;
	/* What came of it: */
	bool ended;		/* somebody had, before he was told to */
	bool stuck;		/* somebody did not, when he was */
	uint64_t since;		/* the time of the last step */
};

void race_run(struct race *race);

/* The error number of the last call that failed, or 0. */
int race_error(void);

/*
 * Whether the kernel has killed some of @killed processes for want of memory, and no
 * call failed: no evidence, see OOM_KILLED.
 */
bool race_oom_killed(int killed);

/*
 * NULL, or a line that says what went wrong: a call failed, or a process died. @ended
 * says that one did before it was told to end.
 */
const char *race_failed(const struct crew *crew, bool ended);

/*
 * For FIXTURE_TEARDOWN, as crew_end(). Once somebody is stuck, no wait brings him
 * back.
 */
const char *race_end(struct crew *crew, bool stuck, int fd, int ms);

#endif /* _MIGRATE_RACE_H */
