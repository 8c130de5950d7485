/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Rounds: a huge page that several processes map is migrated while they write to
 * it. Is all that they wrote there in the end? There is nothing of a test harness
 * in here. One round is
 *
 *	place      one page on the node that it is to leave, the others, which
 *	           shall stay, on the other
 *	map        sharers map the file anew, each at an address of its own, and
 *	           touch pages that are populated: one fault each if the table is
 *	           shared, one fault a page if not. This is the proof of sharing.
 *	write      until all writers are at it
 *	migrate    by the trigger under test; writers go on
 *	stop       the writers, somewhat later
 *	compare    journals in a new mapping with the number of the last write
 *	unmap      all but sharer 0: no stale TLB entry reaches the next round
 *
 * A page counts as migrated if it was on one node before the call and is on
 * the other after it (for offlining, which does not say where to: in another
 * page frame). A call counts if it moved a page, and if each writer wrote to all
 * pages at least once meanwhile: who did not could not lose a write.
 */
#ifndef _MIGRATE_ROUND_H
#define _MIGRATE_ROUND_H

#include <sched.h>

#include "migrate_timeline.h"
#include "migrate_util.h"
#include "migrate_writers.h"

#define ROUND_PAGES		4	/* populated pages of the file */
#ifndef IN_TREE
#define ROUND_FILLERS		16
#endif
#define ROUND_SPARE		(2 * ROUND_PAGES + 2)	/* free huge pages a node */
#define ROUND_MIN_MOVES		3	/* fewer are no evidence */

enum backing { HUGETLBFS, MEMFD, SYSV };

enum trigger {
	MIGRATE_PAGES, MOVE_PAGES, MBIND, SOFT_OFFLINE, BLOCK_OFFLINE,
};

enum layout {
	SHARED,		/* table can be shared, and must be */
	UNALIGNED,	/* no whole PUD in the mapping: must not be */
	PRIVATE,	/* MAP_PRIVATE: must not be */
	ALONE,		/* nobody to share with */
};

/* What rounds are about. */
struct round_setup {
	enum backing backing;
	enum layout layout;
	int sharers;		/* sharer 0 included, which does not write */
	bool contended;		/* all pages leave at once */
	enum trigger trigger;
	bool of_another;	/* migrate_pages(2) is for sharer 1, which writes */
	bool may_offline;	/* memory, by a trigger */
};

/* What they are made of. */
struct rounds {
	struct memory memory;	/* first: a struct memory is all that maps know */
	struct writers writers;	/* without sharer 0, which is the test */
	struct round_setup setup;
	int fd;
	int shmid;
	int nodes[2];		/* pages leave from, and go to; may be one */
	long spare;		/* free huge pages a node, to begin a round with */
#ifndef IN_TREE
	int fillers;		/* pages of the file that only take up room */
#endif
	struct tracepoint share, unshare;
	int cpus[CPU_SETSIZE];	/* that the test may use */
	int nr_cpus;
	long oom_kills;		/* before all rounds */
	/* Set by the test: takes a line about a write that is lost. */
	void (*tell)(const char *line);
	/* NULL, or is told of each page that moved, before writes are made good. */
	void (*moved)(const struct rounds *st, const struct call *call, int page,
		      const struct place *from, const struct place *to,
		      const char *view);
};

/* What came of them. */
struct round_result {
	long calls, failed_calls;
	int error;		/* of the last that failed */
	long moved_calls;	/* with all writing meanwhile */
	long idle_calls;	/* that moved a page, without that */
	long moves, lost_moves;	/* of pages */
	long lost;		/* writes */
	long hot_calls, hot_moved;	/* with writers that did not rest */
	long unshares;
	int examples;		/* of lost writes, to be told yet */
	int rests;
};

enum round_end {
	ROUND_DONE,
	ROUND_NOT_SHARED,	/* a table that should be */
	ROUND_SHARED,		/* a table that must not be */
	ROUND_BROKEN,		/* the test itself does not work */
	ROUND_STARVED,		/* nor can it: the OOM killer was there */
};

extern const char * const backing_name[];
extern const char * const trigger_name[];

/* Whether a trigger takes memory away. */
bool trigger_offlines(enum trigger trigger);

/*
 * rounds_init() comes first. From there on rounds_end() may be called at any
 * time. Rounds are made on one CPU, and rounds_end() leaves that. Before
 * rounds_begin(), a test can set st->fd to a file on hugetlbfs of one PUD that it
 * has opened; rounds_end() closes it. rounds_begin() returns NULL, or a line that
 * says what is missing.
 */
void rounds_init(struct rounds *st);
const char *rounds_begin(struct rounds *st, const struct round_setup *setup);
void rounds_end(struct rounds *st);

/*
 * After rounds_begin(), which can do with one node: NULL, or a line that says why
 * this trigger is not for this machine.
 */
const char *trigger_lacks(const struct rounds *st, enum trigger trigger);

/* One of them. Sets @why to a line, if it does not return ROUND_DONE. */
enum round_end round_run(struct rounds *st, struct round_result *r,
			 const char **why);

#endif /* _MIGRATE_ROUND_H */
