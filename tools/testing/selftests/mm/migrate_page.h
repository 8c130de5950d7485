/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Pages: the nodes that they can be on, how large a huge page is and what address
 * space it takes, where a page is, and how it gets there.
 */
#ifndef _MIGRATE_PAGE_H
#define _MIGRATE_PAGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Two nodes with memory: nodes[0], where pages are to leave from, and nodes[1],
 * that of @cpu if there is a choice, where they go. nodes_lack() returns NULL or,
 * where there are less than @wanted, 1 or 2, a line that says so.
 */
const char *nodes_lack(int nodes[2], int wanted, int cpu);

/*
 * mbind(2) to one node, and migrate_pages(2) from one to another, whatever their
 * numbers. They return what these do, with errno.
 */
long bind_range(void *addr, size_t len, int node, unsigned int flags);
long migrate_node(pid_t pid, int from, int to);

/* Read from @nr huge pages; returns the number of page faults that it took. */
long touch_pages(char *addr, int nr);

/* Bytes in a huge page that one PMD entry maps, and in the range of a PUD. */
size_t pmd_size(void);
size_t pud_size(void);

/*
 * Address space for @nr PUDs, aligned to one and not accessible. NULL where
 * there is none. area_lacks() says so, for FIXTURE_SETUP. unmap_pud() unmaps
 * what is in one of them, and keeps the addresses from being used by anything
 * else.
 */
char *reserve_puds(int nr);
const char *area_lacks(char **area, int nr);
void unmap_pud(char *addr);

/*
 * Where the page at @addr of process @pid (0: this one) is. Both return -errno
 * where there is no page: touch it and ask again.
 */
int page_node(pid_t pid, void *addr);
int64_t page_pfn(pid_t pid, void *addr);

/* Huge pages that the VMA that begins at @addr maps by PMDs, -1 if there is none. */
long huge_anon_pages(const char *addr);

#endif /* _MIGRATE_PAGE_H */
