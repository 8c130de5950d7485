/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The rules for what MMU notifiers are told when a page is migrated or given up,
 * and whether a record of lib/test_mmu_notifier.c keeps them. There is nothing of
 * a test harness in here.
 *
 * The rules, for each sharer
 *
 *	pairs	Each start has its end, by the same thread, and they nest. If
 *		the start may block, so may the end: a notifier could wait in
 *		the one for what it lets go of in the other.
 *	atomic	None of these is called with a spinlock held: they may sleep.
 *	told	There is such a pair around the moment at which the page went. (One
 *		page alone may go without.)
 *	whole	The pair has the range of the page, and if a table went with it, of
 *		every PUD whose table may be shared.
 *	narrow	And no more: where none may be, that of the page alone.
 *	tlb	In between, once the page had gone, secondary TLBs were told to
 *		drop it: if the table was unshared, the whole PUD, and not only
 *		by the end, which comes when the table may be free already.
 *	copy	All of that was before the page was copied.
 *
 * So this is a record without fault, of a page whose table is unshared:
 *
 *	start  |------------- the PUD -------------|	page present, not copied
 *	tlb    |------------- the PUD -------------|	no table, not copied
 *	end    |------------- the PUD -------------|	no table
 *	       |   | page |                        |	copied only then
 */
#ifndef _MIGRATE_NOTIFIER_H
#define _MIGRATE_NOTIFIER_H

#include <stdbool.h>
#include <stdint.h>

#include <lib/test_mmu_notifier_uapi.h>

#define MAX_EVENTS	4096
#define EXAMPLES	8

struct event_list {
	struct test_mmu_notifier_event at[MAX_EVENTS];
	int nr;
};

/* One sharer's record, and what it is to be compared with. */
struct check {
	int pid;			/* of the sharer */
	const struct event_list *events;
	const uint64_t *stamps;	/* of the page as it is now; NULL: not copied */
	uint64_t page, page_end;	/* what is given up, or migrated */
	uint64_t start, end;		/* what is to be told of that */
	uint64_t table, table_end;	/* the first page's PUD */
	bool moved;			/* the page was */
};

struct verdict {
	long wrong;		/* so far */
	int examples;		/* to be told yet */
};

/* All rules; those that hold whatever became of the page. */
void notifier_check(struct verdict *verdict, const struct check *c);
void notifier_check_pairs(struct verdict *verdict, const struct check *c);
void notifier_tell(const struct check *c);

#endif /* _MIGRATE_NOTIFIER_H */
