// SPDX-License-Identifier: GPL-2.0
#include <stdio.h>

#include "migrate_notifier.h"

static bool covers(const struct test_mmu_notifier_event *e, uint64_t start,
		   uint64_t end)
{
	return e->start <= start && e->end >= end;
}

static bool in_page_before_copy(const struct check *c,
				const struct test_mmu_notifier_event *e)
{
	if (!c->stamps)
		return true;
	return e->flags & TEST_MMU_NOTIFIER_STAMPED &&
	       c->stamps[e->nr % TEST_MMU_NOTIFIER_SLOTS] == e->nr;
}

void notifier_tell(const struct check *c)
{
	static const char * const kinds[] = { "?", "start", "end", "tlb" };
	static const char * const states[] = {
		"?", "no table", "empty", "present", "other",
	};
	int i;

	for (i = 0; i < c->events->nr; i++) {
		const struct test_mmu_notifier_event *e = &c->events->at[i];

		printf("#   %llu: %-5s 0x%llx-0x%llx by %u, %s%s%s%s%s%s\n",
		       (unsigned long long)e->nr, kinds[e->kind & 3],
		       (unsigned long long)e->start,
		       (unsigned long long)e->end, e->task,
		       e->watched <= 4 ? states[e->watched] : "?",
		       e->flags & TEST_MMU_NOTIFIER_ATOMIC ?
		       ", atomic" : "",
		       e->flags & TEST_MMU_NOTIFIER_BLOCKABLE ?
		       ", may block" : "",
		       e->flags & TEST_MMU_NOTIFIER_BY_END ?
		       ", by end" : "",
		       e->flags & TEST_MMU_NOTIFIER_STAMPED ?
		       ", page there" : "",
		       c->stamps && in_page_before_copy(c, e) ?
		       ", not copied" : "");
	}
}

static void complain(struct verdict *verdict, const struct check *c,
		     const char *rule, const char *what)
{
	verdict->wrong++;
	if (verdict->examples-- <= 0)
		return;
	printf("# %s: %s: pid %d, page 0x%llx-0x%llx, to be told 0x%llx-0x%llx\n",
	       rule, what, c->pid, (unsigned long long)c->page,
	       (unsigned long long)c->page_end,
	       (unsigned long long)c->start,
	       (unsigned long long)c->end);
	notifier_tell(c);
}

/* The end that belongs to a start; -1 if there is none, or it does not nest. */
static int end_of(const struct event_list *list, int start)
{
	const struct test_mmu_notifier_event *s = &list->at[start];
	int i, depth = 0;

	for (i = start + 1; i < list->nr; i++) {
		const struct test_mmu_notifier_event *e = &list->at[i];

		if (e->task != s->task)
			continue;
		if (e->kind == TEST_MMU_NOTIFIER_RANGE_START)
			depth++;
		if (e->kind != TEST_MMU_NOTIFIER_RANGE_END)
			continue;
		if (depth--)
			continue;
		return e->start == s->start && e->end == s->end ? i : -1;
	}
	return -1;
}

void notifier_check_pairs(struct verdict *verdict, const struct check *c)
{
	const struct event_list *list = c->events;
	int i, starts = 0, ends = 0;

	for (i = 0; i < list->nr; i++) {
		const struct test_mmu_notifier_event *e = &list->at[i];

		if (e->kind == TEST_MMU_NOTIFIER_RANGE_START) {
			int end = end_of(list, i);

			starts++;
			if (end < 0)
				complain(verdict, c, "pairs",
					 "a start without its end");
			else if (e->flags & ~list->at[end].flags &
				 TEST_MMU_NOTIFIER_BLOCKABLE)
				complain(verdict, c, "pairs",
					 "a start that may block, and an end that may not");
		}
		ends += e->kind == TEST_MMU_NOTIFIER_RANGE_END;
		if (e->kind != TEST_MMU_NOTIFIER_INVALIDATE &&
		    e->flags & TEST_MMU_NOTIFIER_ATOMIC &&
		    e->flags & TEST_MMU_NOTIFIER_BLOCKABLE)
			complain(verdict, c, "atomic",
				 "called where it may not sleep");
	}
	if (starts < ends)
		complain(verdict, c, "pairs", "an end without its start");
}

/*
 * Was the TLB told, once the page had gone? Before the end, if the page was to
 * be copied next; what is unmapped and freed may be flushed later, but before it
 * is freed.
 */
static void check_tlb(struct verdict *verdict, const struct check *c,
		      int start, int end)
{
	const struct event_list *list = c->events;
	bool unshared = end < list->nr &&
			list->at[end].watched == TEST_MMU_NOTIFIER_NO_TABLE;
	int i, last = c->moved ? end : list->nr;

	for (i = start + 1; i < last; i++) {
		const struct test_mmu_notifier_event *e = &list->at[i];

		if (e->kind != TEST_MMU_NOTIFIER_INVALIDATE ||
		    e->watched == TEST_MMU_NOTIFIER_PRESENT)
			continue;
		/* Of a page, one address in it is enough: TLBs drop all of it. */
		if (!covers(e, unshared ? c->table : c->page,
			    unshared ? c->table_end : c->page + 1))
			continue;
		/* By then others may have freed the table. */
		if (e->flags & TEST_MMU_NOTIFIER_BY_END && unshared && c->moved)
			continue;
		if (!in_page_before_copy(c, e))
			complain(verdict, c, "copy",
				 "secondary TLBs were told after the copy");
		return;
	}
	complain(verdict, c, "tlb", unshared ?
		 "secondary TLBs keep a table that was unshared" :
		 "secondary TLBs keep a page that was unmapped");
}

/*
 * The pair in which the page went: it was there at the start, and is not at the
 * end. Of several, one inside the other, that which has the right range.
 */
static int find_pair(const struct check *c, int *end)
{
	const struct event_list *list = c->events;
	int i, found = -1;

	*end = -1;
	for (i = 0; i < list->nr; i++) {
		const struct test_mmu_notifier_event *e = &list->at[i];
		int last;

		if (e->kind != TEST_MMU_NOTIFIER_RANGE_START ||
		    e->watched != TEST_MMU_NOTIFIER_PRESENT)
			continue;
		last = end_of(list, i);
		if (last < 0 ||
		    list->at[last].watched == TEST_MMU_NOTIFIER_PRESENT)
			continue;
		if (found < 0 || covers(e, c->start, c->end)) {
			found = i;
			*end = last;
		}
	}
	return found;
}

void notifier_check(struct verdict *verdict, const struct check *c)
{
	const struct event_list *list = c->events;
	int i, start, end;
	bool gone;

	notifier_check_pairs(verdict, c);

	start = find_pair(c, &end);
#ifndef IN_TREE
	/*
	 * Up to 4.12 there was a call for a page alone, by itself, once it had
	 * gone: that does where nothing else goes with it.
	 */
	if (start < 0 && c->start == c->page && c->end == c->page_end) {
		check_tlb(verdict, c, -1, list->nr);
		return;
	}
#endif
	if (start < 0) {
		complain(verdict, c, "told", "nobody was told when the page went");
		return;
	}
	/* A kernel may also leave the table, and flush all who share it. */
	gone = list->at[end].watched == TEST_MMU_NOTIFIER_NO_TABLE;
	if (!covers(&list->at[start], gone ? c->start : c->page,
		    gone ? c->end : c->page_end))
		complain(verdict, c, "whole",
			 "the range is not all that may go");
	for (i = 0; i < list->nr; i++) {
		const struct test_mmu_notifier_event *e = &list->at[i];

		if (e->kind != TEST_MMU_NOTIFIER_RANGE_START ||
		    (e->start >= c->start && e->end <= c->end))
			continue;
		complain(verdict, c, "narrow",
			 "the range is more than what may go");
		break;
	}
	if (!in_page_before_copy(c, &list->at[start]))
		complain(verdict, c, "copy", "the start came after the copy");
	check_tlb(verdict, c, start, end);
}
