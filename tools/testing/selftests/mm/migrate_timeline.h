/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One migration told in full: which writes were made when, and which of them are
 * there. What the journals hold of it is enough to say so of some of them:
 *
 *	call	     |<----------------------->|
 *	writer 1  ....x...x..xxoooooooooooo....x..x.
 *	writer 2  ..x..xx.....x.......x.....xx....x.	x there, o lost
 *
 * It is printed as lines of key=value pairs, which a picture can be made of.
 */
#ifndef _MIGRATE_TIMELINE_H
#define _MIGRATE_TIMELINE_H

#include "migrate_writers.h"

struct place {
	int node;
	int64_t pfn;
};

struct call {
	long nr;		/* in its test, from 1 */
	uint64_t began, ended;
	bool hot;		/* writers had no rest */
};

/*
 * Note what @call did to @page, if it is better to show than what was noted
 * before: the first that lost writes, or else the first of all. @view is as for
 * writers_check(), before anything is made good.
 */
void timeline_note(const struct writers *w, const struct call *call, int page,
		   const struct place *from, const struct place *to,
		   const char *view);
void timeline_print(const struct writers *w);

/* Microseconds from the beginning of the call that was noted. */
double timeline_us(uint64_t stamp);

#endif /* _MIGRATE_TIMELINE_H */
