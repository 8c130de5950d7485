/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Writers: processes, or threads, that store to pages all the time while these
 * migrate, and what of that is missing in the end. There is nothing of a test
 * harness in here.
 *
 * Each writer has a journal of its own (see migrate_journal.h) in every page, or in
 * pages of its own where a page has no room for more than one:
 *
 *	page 0			page 1			page 2
 *	| journal of writer 0 |	| journal of writer 0 |	...
 *	| journal of writer 1 |	| journal of writer 1 |
 *
 * Writers are told what to do, and say when they have done it:
 *
 *	WRITE	map the memory, and store to all pages in turn. Done as soon as all
 *		are at it; they go on until they are told something else.
 *	STOP	end that, somewhat later.
 *	UNMAP	the memory. No stale TLB entry of it is left.
 */
#ifndef _MIGRATE_WRITERS_H
#define _MIGRATE_WRITERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "migrate_journal.h"

#define MAX_WRITERS	8
#define MAX_PAGES	64	/* that each of them writes to */
#define MAX_RESTS	6

enum order { WRITE = 1, STOP, UNMAP };

/* What they write to. */
struct memory {
	/* Map and unmap all of it at @addr; NULL: it is there, at @there. */
	int (*map)(const struct memory *mem, char *addr);
	void (*unmap)(const struct memory *mem, char *addr);
	char *there;
	size_t page;		/* bytes, 4 KiB or a huge page's */
	int nr_pages;		/* that each writes to */
	bool shares_table;	/* processes that map it share a table, or no test */
};

struct writer {
	/* Set by the test: sequence number << 4 | order, so that each is new. */
	uint32_t cmd;
	uint32_t ack;
	uint32_t hot_passes;	/* to make before it acknowledges */
	uint32_t pause_us;	/* to make now and then, 0 for none */
	/* Set by the writer before it acknowledges. */
	int error;		/* errno of the mapping, 0 if there is one */
	long faults;		/* to touch all pages the first time */
	long write_faults;	/* while it wrote */
	uint64_t now;		/* number of the last write so far */
	uint64_t first;		/* number of the first write of a round */
	uint64_t last;		/* number of the last write to each page */
	uint64_t stamps[JOURNAL_WORDS];	/* when a slot of ring 1.. was written */
	char *addr;		/* of the mapping; a new one each time */
	unsigned int maps;	/* so far */
	pid_t tid;		/* its own, where it is a thread too */
	/* Constant. */
	pid_t pid;		/* 0 for one that is a thread, or has ended */
	int cpu;
	char *room;		/* address space for @rooms mappings */
};

struct writers {
	const struct memory *mem;
	struct writer *each;	/* in memory that all share */
	int nr;
	char *area;		/* address space of all of them */
	size_t area_size;
	int rooms;		/* mappings that each has address space for */
};

/*
 * Address space: a PUD for the test's own mapping, some for each writer's, and
 * two for a mapping that begins one page behind the border of one, so that it
 * shares no table with anybody. Returns false, with errno, if there is none.
 */
bool writers_reserve(struct writers *w, int nr);
char *writers_own_addr(const struct writers *w);
char *writers_view_addr(const struct writers *w);

/*
 * Processes or threads, on @cpus from the last down. To be called before the test
 * maps the memory: they are not to inherit it. Returns 0 or an error number.
 */
int writers_fork(struct writers *w, const int *cpus, int nr_cpus);
int writers_thread(struct writers *w, const int *cpus, int nr_cpus);
void writers_kill(struct writers *w);	/* the processes; frees what there is */

/*
 * Give all of them an order, and wait until they have obeyed. Returns false, with
 * a line that says why, if one has not. For WRITE, @rests is how much they are to
 * rest: 0 for not at all, up to MAX_RESTS.
 */
bool writers_order(struct writers *w, enum order what, int rests);

/*
 * How many have stored to all of their pages since writers_note(): they have begun
 * to after it, and have come to the end.
 */
void writers_note(const struct writers *w, uint64_t *then);
int writers_wrote(const struct writers *w, const uint64_t *then);

/* Where in the memory the journal is that a writer has in its page @page. */
size_t writers_offset(const struct writers *w, int page, int writer);

/* When write @n, which is in @ring, was made: exact to 16 writes. */
uint64_t writers_stamp(const struct writer *writer, int ring, uint64_t n);

/* A store that is not there. */
struct lost_write {
	int writer, page;
	size_t offset;		/* in the memory */
	uint64_t wrote, found;
	uint64_t stamp;
};

/*
 * Compare all journals with what must be there, through @view: a mapping that no
 * TLB has seen, or, with @mem, which is open for /proc/<pid>/mem, where these
 * pages are in that process: the kernel's own walk of its page tables. Calls
 * @lost for each store that is missing, and makes it good, or it would be seen
 * again. Adds their number to lost_in[page]; returns it, or -errno.
 */
long writers_check(const struct writers *w, char *view, int mem,
		   void (*lost)(const struct lost_write *loss, void *arg),
		   void *arg, long *lost_in);

#endif /* _MIGRATE_WRITERS_H */
