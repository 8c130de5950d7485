/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Kinds of memory that are written to while they migrate: how each is made, what
 * it needs, and whether its pages are what they are to be.
 *
 *	kind		what it is			pages		written to by
 *	anon		private				base		threads
 *	anon_mthp	private				64 KiB		threads
 *	anon_thp	private				of a PMD	threads
 *	shmem		a memfd				base		processes
 *	shmem_mthp	a memfd				64 KiB		processes
 *	shmem_thp	a memfd				of a PMD	processes
 *	file		a file on a disk		base		processes
 *	file_thp	a file on a disk		of a PMD	processes
 *	hugetlb		a hugetlb file			of a PMD	processes
 *
 * Each writer has base pages of its own, while all of them write to each huge
 * page. Processes map the file anew in each round. Those of a hugetlb file share
 * the page table that maps it, with each other and with the test.
 *
 * The file on a disk is in the directory that the test is run in, or, if that is
 * in memory itself, in a file system in a loop device. Not all of them have huge
 * pages.
 */
#ifndef _MIGRATE_KINDS_H
#define _MIGRATE_KINDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migrate_writers.h"

#define RANGE_PAGES	(MAX_WRITERS * MAX_PAGES)

enum size { BASE, SMALL_HUGE, HUGE };

struct kind {
	const char *name;
	enum size pages;
	bool file;		/* that processes map; else threads write to it */
	bool disk;		/* is what the file is on */
	bool hugetlb;		/* is what has the file */
	/* The file of THP_DIR that is needed, and what it is to say. */
	const char *setting, *value;
	const char *needs;	/* to have that */
};

extern const struct kind kind_anon, kind_anon_mthp, kind_anon_thp;
extern const struct kind kind_shmem, kind_shmem_mthp, kind_shmem_thp;
extern const struct kind kind_file, kind_file_thp;
extern const struct kind kind_hugetlb;

/* Memory of one kind. */
struct range {
	struct memory memory;	/* first: see map_range() */
	const struct kind *kind;
	int nr_pages;		/* of all writers */
	size_t size;		/* of them */
	size_t mapped;		/* bytes: a PUD, for its table to be shared */
	bool *journals;		/* of which blocks, each as large as one */
	int fd;			/* of the file, or -1 */
	char *own;		/* the mapping of who moves it */
	void *pages[RANGE_PAGES];	/* in that */
};

/*
 * In the order in which they are called. Those that return a line say what is
 * missing, or NULL.
 *
 * range_init() leaves range_free() something to do, whatever comes then.
 * range_lacks() has the kernel allow such pages. range_open() says which pages
 * there are, opens the file, and sees to it that both nodes have such pages, if
 * they are of a pool. It asks @w where journals are, which has this memory. Then
 * writers are forked that are processes: they are not to inherit the mapping at
 * @own, which comes next. range_fill() has all pages of that.
 */
void range_init(struct range *r, const struct kind *kind);
const char *range_lacks(const struct range *r);
const char *range_open(struct range *r, const struct writers *w,
		       const int nodes[2]);
int range_map(const struct range *r, char *addr);	/* an error number, or 0 */
const char *range_fill(const struct range *r);
void range_unmap(const struct range *r, char *addr);
void range_free(struct range *r);

/* What a word is at first: 0, where a journal is to be. */
uint64_t range_first_word(const struct range *r, size_t offset);

/*
 * Is each huge page a single one, for the kernel too? range_not_huge() is the line
 * for a SKIP if not.
 */
bool range_is_huge(const struct range *r);
const char *range_not_huge(const struct range *r);

/*
 * Give all pages back, and have new ones: range_renew() with the contents that the
 * old ones had, and range_refill() with none but the first. The latter returns
 * NULL, or a line that says why that cannot be.
 */
void range_renew(const struct range *r);
const char *range_refill(const struct range *r);

#endif /* _MIGRATE_KINDS_H */
