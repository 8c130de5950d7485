// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest.h"
#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_mount.h"
#include "migrate_page.h"
#include "migrate_util.h"

#define SHARE_TRIES	3

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE	23
#endif

const char *mremap_lacks(char *from, char *to)
{
	char *moved = mremap(from, pmd_size(), pmd_size(),
			     MREMAP_MAYMOVE | MREMAP_FIXED, to);

	if (moved == MAP_FAILED)
		return "no mremap of huge pages on this kernel (since 5.16)";
	touch_pages(moved, 1);
	return page_pfn(0, moved) < 0 ?
	       "no page frames in pagemap: needs CAP_SYS_ADMIN" : NULL;
}

static int map_pud_as(int fd, char *addr, int prot)
{
	return mmap(addr, pud_size(), prot,
		    MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0) ==
	       MAP_FAILED ? errno : 0;
}

int map_pud(int fd, char *addr)
{
	return map_pud_as(fd, addr, PROT_READ | PROT_WRITE);
}

/* In a process that has touched none of it: no stale TLB entry saves a fault. */
static long faults_of_child(int fd, char *addr, int prot, int first, int nr)
{
	struct crew crew = {};
	pid_t pid = crew_fork(&crew);
	int status;

	if (pid < 0)
		return -errno;
	if (!pid) {
		/* This replaces the mapping that it has inherited. */
		if (map_pud_as(fd, addr, prot))
			_exit(0);
		/* Not to count the faults of the call itself. */
		touch_pages(addr, 0);
		_exit(touch_pages(addr + first * pmd_size(), nr));
	}
	if (waitpid(pid, &status, 0) != pid)
		return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) ?
	       WEXITSTATUS(status) : -EIO;
}

long faults_to_share(int fd, char *addr, int prot, int first, int nr)
{
	int tries, error = map_pud_as(fd, addr, prot);
	long faults = 0;

	if (error)
		return -error;
	touch_pages(addr + first * pmd_size(), nr);
	/* A fault that has nothing to do with these pages may be counted too. */
	for (tries = 0; tries < SHARE_TRIES && faults >= 0 && faults != 1;
	     tries++)
		faults = faults_of_child(fd, addr, prot, first, nr);
	unmap_pud(addr);
	return faults;
}

const char *not_shared(long faults, int nr)
{
	static char why[112];

	snprintf(why, sizeof(why),
		 "table not shared (%ld faults, %d pages): needs %s", faults,
		 nr, "CONFIG_HUGETLB_PMD_PAGE_TABLE_SHARING");
	return why;
}

static void pool_file(char *path, size_t len, int node, const char *name)
{
	snprintf(path, len,
		 "/sys/devices/system/node/node%d/hugepages/hugepages-%zukB/%s",
		 node, pmd_size() >> 10, name);
}

long pool_reserved(void)
{
	char path[96], text[32];

	snprintf(path, sizeof(path),
		 "/sys/kernel/mm/hugepages/hugepages-%zukB/resv_hugepages",
		 pmd_size() >> 10);
	if (file_read(path, text, sizeof(text)))
		return 0;
	/* What is below zero is written as unsigned. */
	return (long)strtoul(text, NULL, 10);
}

/*
 * What others have reserved. Of which node it will be nobody knows. To be asked
 * before the test maps anything, so once for all.
 */
static long others_reserved(void)
{
	static long reserved = -1;

	if (reserved < 0)
		reserved = pool_reserved();
	if (reserved < 0)
		reserved = 0;
	return reserved;
}

/* Returns how many there are beyond what is reserved. */
static long pool_free(int node)
{
	long nr_free, reserved = others_reserved();
	char path[112];

	pool_file(path, sizeof(path), node, "free_hugepages");
	nr_free = file_read_long(path);
	if (nr_free < 0)
		return nr_free;
	return nr_free > reserved ? nr_free - reserved : 0;
}

/* How many that are free are wanted, for @want to be had. */
static long pool_needs(long want)
{
	return want + others_reserved();
}

long pool_fill(int node, long want)
{
	char path[112], value[32];
	long nr, nr_free;

	pool_file(path, sizeof(path), node, "free_hugepages");
	nr_free = file_read_long(path);
	if (nr_free < 0 || nr_free >= pool_needs(want))
		return pool_free(node);

	pool_file(path, sizeof(path), node, "nr_hugepages");
	nr = pool_persistent(path);
	if (nr < 0)
		return nr;
	if (!guard_has(path)) {
		snprintf(value, sizeof(value), "%ld", nr);
		if (guard_undo(path, value))
			return -ENOSPC;
	}
	snprintf(value, sizeof(value), "%ld", nr + pool_needs(want) - nr_free);
	file_write(path, value);
	return pool_free(node);
}

static __noreturn void on_sigbus(int sig)
{
	_exit(1);
}

/*
 * Whether this process can have @nr huge pages: the first ones of @fd, or others
 * where that is below zero. Those that are free may be reserved meanwhile, or more
 * than its hugetlb cgroup may have: it learns that when it touches them, by SIGBUS.
 * Returns 0 or -errno, -ENOSPC if it cannot.
 */
static int pool_gives(int fd, long nr)
{
	size_t i, step = pmd_size(), len = nr * step;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE |
		    (ffsl(step) - 1) << MAP_HUGE_SHIFT;
	struct crew crew = {};
	pid_t pid = crew_fork(&crew);
	int status;
	char *addr;

	if (!pid) {
		signal(SIGBUS, on_sigbus);
		if (fd >= 0)
			flags = MAP_SHARED | MAP_NORESERVE;
		addr = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, fd, 0);
		if (addr == MAP_FAILED)
			_exit(1);
		for (i = 0; i < len; i += step)
			addr[i] = 1;
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -errno;
	return status ? -ENOSPC : 0;
}

long pool_used(int node)
{
	long total, nr_free;
	char path[112];

	pool_file(path, sizeof(path), node, "nr_hugepages");
	total = file_read_long(path);
	pool_file(path, sizeof(path), node, "free_hugepages");
	nr_free = file_read_long(path);
	return total < 0 || nr_free < 0 ? 0 : total - nr_free;
}

const char *pool_lacks(const int *nodes, int nr, long want)
{
	static char why[128];
	long nr_free;
	int i, error;

	for (i = 0; i < nr; i++) {
		nr_free = pool_fill(nodes[i], want);
		if (nr_free >= want)
			continue;
		if (nr_free < 0)
			snprintf(why, sizeof(why),
				 "no huge pages of %zu KiB: needs CONFIG_HUGETLBFS",
				 pmd_size() >> 10);
		else
			snprintf(why, sizeof(why),
				 "%ld free huge pages on node %d, no more to be had: needs %ld",
				 nr_free, nodes[i], want);
		return why;
	}
	error = -pool_gives(-1, nr * want);
	if (error == ENOSPC) {
		snprintf(why, sizeof(why),
			 "%ld free huge pages, but this process cannot have them: a hugetlb cgroup's limit?",
			 nr * want);
		return why;
	}
	if (error) {
		snprintf(why, sizeof(why), "cannot fork a process: %s",
			 strerror(error));
		return why;
	}
	return NULL;
}

const char *populate_lacks(int fd, char *addr, int nr)
{
	static char why[96];
	int error = 0;

#ifndef IN_TREE
	/* Up to 5.10, what fallocate(2) has put into a file may never be migrated. */
#endif
	if (fd >= 0)
		error = -pool_gives(fd, nr);
	else if (madvise(addr, nr * pmd_size(), MADV_POPULATE_WRITE))
		error = errno;
#ifndef IN_TREE
	/* Up to 5.13 that cannot be asked for. */
	if (fd < 0 && error == EINVAL)
		return NULL;
#endif
	if (!error)
		return NULL;
	snprintf(why, sizeof(why), "huge pages were taken by others: %s",
		 strerror(error));
	return why;
}

/*
 * HugetlbPages: has been in this file since 4.4. A file with huge pages that
 * nobody has mapped is not seen.
 */
bool pool_is_shared(void)
{
	char path[300], line[128];
	struct dirent *entry;
	bool found = false;
	long kib;
	FILE *file;
	DIR *dir;

	dir = opendir("/proc");
	while (dir && !found && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%s/status", entry->d_name);
		if (entry->d_name[0] < '0' || entry->d_name[0] > '9' ||
		    getpgid(atoi(entry->d_name)) == getpgrp())
			continue;
		file = fopen(path, "re");
		while (file && fgets(line, sizeof(line), file))
			if (sscanf(line, "HugetlbPages: %ld", &kib) == 1)
				found = kib > 0;
		if (file)
			fclose(file);
	}
	if (dir)
		closedir(dir);
	return found;
}

int hugetlbfs_mount(const char *options)
{
	char opts[64];

	snprintf(opts, sizeof(opts), "pagesize=%zuK%s", pmd_size() >> 10,
		 options);
	return mount_nowhere("hugetlbfs", opts);
}

int hugetlbfs_file(int dir, size_t size)
{
	int fd, ret = 0;

	fd = openat(dir, "f", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, size))
		ret = -errno;
	unlinkat(dir, "f", 0);
	if (ret)
		close(fd);
	return ret ? ret : fd;
}

int hugetlbfs_open(size_t size)
{
	int dir = hugetlbfs_mount(""), fd;

	if (dir < 0)
		return dir;
	fd = hugetlbfs_file(dir, size);
	close(dir);
	return fd;
}

const char *file_lacks(int *fd, size_t size)
{
	static char why[96];

	*fd = hugetlbfs_open(size);
	if (*fd >= 0)
		return NULL;
	snprintf(why, sizeof(why), "cannot mount hugetlbfs: %s",
		 strerror(-*fd));
	return why;
}

const char *mount_lacks(int *dir, int pages)
{
	static char why[64];
	char options[32];

	snprintf(options, sizeof(options), ",size=%zuK",
		 pages * pmd_size() >> 10);
	*dir = hugetlbfs_mount(options);
	if (*dir >= 0)
		return NULL;
	snprintf(why, sizeof(why), "cannot mount hugetlbfs: %s",
		 strerror(-*dir));
	return why;
}

long hugetlbfs_free(int dir)
{
	struct statfs buf;

	return fstatfs(dir, &buf) ? -errno : (long)buf.f_bfree;
}
