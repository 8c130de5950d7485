/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Pages of a hugetlb file that are poisoned and taken back, again and again, while
 * others do something to the same page: see migrate_race.h for those.
 */
#ifndef _MIGRATE_POISON_H
#define _MIGRATE_POISON_H

#include "migrate_race.h"

#define KEPT_MAX	3	/* pages whose poison stays: fewer than are spare */

/* In memory that they share. */
struct poison {
	bool leave;		/* the poison stays: nothing can take it back */
	unsigned long leave_max;	/* pages that it is left in, at the most */
	bool done;		/* no more pages to poison */
	unsigned long begun;	/* by the others: what the errors are to meet */
	unsigned long ended;
	unsigned long errors;	/* that were handled */
	unsigned long met;	/* of them, those that met something */
	unsigned long kept;	/* of them, those whose poison is still there */
	int64_t kept_pfns[KEPT_MAX];
	pid_t poisoner;		/* in madvise(), or 0 */
	int64_t pfn;		/* that is poisoned, or 0 */
	bool met_one;		/* by the last error */
	int refused;		/* errno of madvise() */
};

/*
 * NULL, or a line that says why nobody can tell whether page frames are poisoned: up
 * to 5.19 who asks to take poison back is not told that it was not done.
 */
const char *poisoned_lacks(void);

/*
 * Where vm.memory_failure_early_kill is set, an error ends all who map the page,
 * whether they have touched it or not. Not for those who call this.
 */
void stay_alive(void);

/*
 * Poison a page of the file, once the others have begun something @begin times more.
 * Returns whether it can be done; not to be done again if not.
 */
bool poison_page(struct poison *poison, int fd, int page, unsigned long begin);

/*
 * Count that error, punch the page out of the file, which nobody may use any more,
 * and take the poison back. Returns whether more pages may be poisoned.
 */
bool poison_take_back(struct poison *poison, int fd, int page);

/*
 * Once more, when nobody has the file: what stays poisoned is lost, and is told. And
 * where the one is who poisons, if he does not come back.
 */
void poison_end(const struct poison *poison);
void poison_tell(const struct poison *poison);

#endif /* _MIGRATE_POISON_H */
