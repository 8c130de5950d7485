/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Pages of hugetlbfs: the pools that they are from, files of them, and whether
 * processes that map these share a page table.
 */
#ifndef _MIGRATE_HUGETLB_H
#define _MIGRATE_HUGETLB_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Move the huge page that is mapped at @from to @to, by mremap(2), and ask where
 * it is. Returns NULL, or a line that says why this kernel cannot do that.
 */
const char *mremap_lacks(char *from, char *to);

/*
 * Map the first pud_size() bytes of a file there, shared and to be written to;
 * 0 or an error number.
 */
int map_pud(int fd, char *addr);

/*
 * Do processes share a page table if they map the first pud_size() bytes of a
 * file in the same way, with @prot? This one does so at @addr, and touches the
 * pages @first to @first + @nr - 1. Then another one does. Returns how many page
 * faults that one took: 1 if so, and @nr if not; or -errno. Nothing stays mapped.
 */
long faults_to_share(int fd, char *addr, int prot, int first, int nr);

/* The line for a SKIP where @nr pages took more faults than one, or none. */
const char *not_shared(long faults, int nr);

/*
 * See to it that at least @want huge pages of pmd_size() are free on @node, and
 * reserved by nobody. Returns how many are. The guardian restores the size of the
 * pool.
 */
long pool_fill(int node, long want);

/*
 * The same for each of @nr nodes, and this process can have them all. Returns
 * NULL, or a line that says what is missing.
 */
const char *pool_lacks(const int *nodes, int nr, long want);

/*
 * Have the first @nr huge pages of @fd there, or, where that is below zero, those of
 * a mapping at @addr. Others may have taken what pool_lacks() has seen: who touches
 * a page then is killed. Returns NULL, or a line that says why they are not.
 */
const char *populate_lacks(int fd, char *addr, int nr);

/*
 * Huge pages of pmd_size() that are reserved: they count as free until they are
 * touched, but are not to be had. Below zero if a kernel has lost count of them.
 */
long pool_reserved(void);

/*
 * Huge pages of @node that are in use; 0 where that cannot be known. And whether
 * any process that is not of this test has some, so that their number changes by
 * itself.
 */
long pool_used(int node);
bool pool_is_shared(void);

/*
 * A hugetlbfs with pages of pmd_size() that is mounted nowhere, and a
 * file in it that has no name any more, @size bytes long. Both return a
 * descriptor or -errno. @options begins with a comma, or is empty.
 * hugetlbfs_open() does both, for who needs nothing but the file. file_lacks()
 * is the same for FIXTURE_SETUP: NULL, or a line that says why there is none.
 * mount_lacks() says so of a mount that has a size, @pages huge pages.
 */
int hugetlbfs_mount(const char *options);
int hugetlbfs_file(int dir, size_t size);
int hugetlbfs_open(size_t size);
const char *file_lacks(int *fd, size_t size);
const char *mount_lacks(int *dir, int pages);

/*
 * Huge pages that are left in a mount with a size: its own count, which nobody
 * else's pages are in. -errno, or a number that means nothing without a size.
 */
long hugetlbfs_free(int dir);

#endif /* _MIGRATE_HUGETLB_H */
