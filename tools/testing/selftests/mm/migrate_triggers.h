/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What makes the kernel migrate memory: what each trigger needs, how it is fired,
 * and how one sees that pages have moved.
 *
 *	trigger				who asks for it		seen by
 *	move_pages			move_pages(2)		node
 *	mbind				mbind(2)		node
 *	migrate_pages			migrate_pages(2)	node
 *	migrate_pages_of_another	a process without the	node
 *					memory
 *	cpuset				the nodes of a cgroup	node
 *	cpuset_v1			change
 *	damon				DAMON, which is told to	node
 *					migrate page frames
 *	demotion			reclaim, to a slower	node, one way
 *					node
 *	numa_balancing			who uses a page, from	node, of some
 *					another node
 *	promotion			or from a slower one	node, one way
 *	compaction			/sys, for a whole node	frame
 *	offline				/sys, for a block	frame, of some
 *	acpi_eject			ACPI, for a DIMM	frame, none of it
 *	soft_offline			madvise(2), for pages	frame
 *
 * These pages go by which trigger, if the kernel has it:
 *
 *	all of the syscalls		all kinds
 *	cpuset, cpuset_v1, acpi_eject	all kinds
 *	damon, demotion			all but hugetlb
 *	numa_balancing, promotion	anon_mthp, shmem*
 *	compaction			all but *_thp and hugetlb
 *	offline				all but hugetlb
 *	soft_offline			anon, shmem, file
 *
 * Soft offlining splits huge pages of other kinds than hugetlb before it moves them.
 * hugetlb_pmd_migrate has hugetlb pages moved by what takes memory away for a while.
 *
 * DAMON has a file of its own, as have compaction, what moves memory between nodes
 * of different speed, and what ejects a DIMM.
 */
#ifndef _MIGRATE_TRIGGERS_H
#define _MIGRATE_TRIGGERS_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate_kinds.h"

/* What is to be moved, and between which nodes. */
struct mover {
	struct range *range;
	int nodes[2];		/* lacks() may change them */
};

struct trigger {
	const char *name;
	int (*move)(const struct mover *m, int to);	/* 0 or -errno */
	/* What is missing, or NULL; sets up what it needs. */
	const char *(*lacks)(struct mover *m);
	/* NULL, or is called before each call, with nobody writing. */
	void (*prepare)(const struct mover *m);
	/* NULL, or says what it has prepared: for who finds that few pages moved. */
	void (*tell)(const struct mover *m);
	/*
	 * NULL, or whether a frame is in the memory that it takes away. Only pages
	 * that were in it have moved, if it could take it, and none is to be left.
	 */
	bool (*holds)(int64_t frame);
	bool frame;		/* is all that changes: nobody says where to */
	bool some;		/* of the pages are moved, and others stay */
	bool one_way;		/* to the second node */
	bool awake;		/* it does not look at who rests */
};

extern const struct trigger trigger_move_pages, trigger_mbind;
extern const struct trigger trigger_migrate_pages;
extern const struct trigger trigger_migrate_pages_of_another;
extern const struct trigger trigger_cpuset, trigger_cpuset_v1;
extern const struct trigger trigger_offline, trigger_soft_offline;

/* move_pages(2), for what is to be on a node before a trigger is fired. */
int range_move(const struct range *r, int to);

/*
 * The nodes that the pages are on; for one that is nowhere, an error number.
 * range_locate() has those mapped that are there, but maybe not mapped any more.
 */
void range_query(const struct range *r, int *nodes);
void range_locate(const struct range *r, int *nodes);
int range_count_on(const struct range *r, const int *nodes, int node);

/*
 * The same with page frames, and how many pages moved by a trigger: to another frame,
 * or node; and how many are in what it holds, which is nothing for most.
 */
struct places {
	int nodes[RANGE_PAGES];
	int64_t frames[RANGE_PAGES];
};

void places_look(const struct range *r, struct places *places);
int places_moved(const struct range *r, const struct trigger *trigger,
		 const struct places *from, const struct places *to);
int places_held(const struct range *r, const struct trigger *trigger,
		const struct places *places);

/* For qsort(3): page frames, or what begins with the number of one. */
int frames_compare(const void *one, const void *other);

#endif /* _MIGRATE_TRIGGERS_H */
