// SPDX-License-Identifier: GPL-2.0
/*
 * Does a child have the private huge pages of its parent, of whatever size?
 *
 * fork(2) copies the page table entries of private mappings. Where the entry of
 * a hugetlb mapping would go into a table that is shared with others already,
 * there is nothing to copy. But only PMD tables can be shared, and only these
 * count by how many they are:
 *
 *	huge page		its entry is in		counts
 *	one PMD maps it		a PMD table		yes
 *	larger, 1 GiB		a PUD table		no
 *	smaller, 64 KiB		a PTE table		no
 *
 * Where a kernel asks the others, it reads what is left of an earlier use of the
 * memory: of the page cache that is the offset in a file. If that is not 0, fork
 * goes on without a word. The child finds no page: a new one, which is empty, or
 * SIGBUS.
 *
 * A process writes to a private mapping of one huge page. It has a file in
 * memory for a moment, so that free memory is left of page cache, and forks a
 * child that looks for what was written. And again. The file is one of ramfs: its
 * pages cannot be moved, so they are where page tables come from, too.
 *
 * Environment:
 *	HUGETLB_FORK_ROUNDS=n	how many children there are, at most
 */
#include "kselftest_harness.h"

#include <dirent.h>
#include <fcntl.h>
#include <numa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate_guard.h"
#include "migrate_mount.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define ROUNDS		400
#define CACHE_MIB	16	/* of a file, before each fork */
#define EVERY		8	/* rounds in which there is such a file */
#define MIN_CHILDREN	50	/* fewer are no evidence */
#define ENOUGH_MS	15000	/* for all of them */
#define SIZE_SHIFT	26	/* of a size in the flags of mmap(2) */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE	23
#endif
#define FOLDER		"/sys/kernel/mm/hugepages"
#define NODE_FOLDER	"/sys/devices/system/node/node%d/hugepages"
#define MAGIC		0x666f726b

FIXTURE(hugetlb_fork_sizes)
{
	size_t size;
	uint32_t *page;
	int dir;		/* of the ramfs */
	char *chunk;		/* of a file */
};

FIXTURE_VARIANT(hugetlb_fork_sizes)
{
	int order;	/* of the size: that of a PMD, larger, smaller */
};

FIXTURE_VARIANT_ADD(hugetlb_fork_sizes, larger) { .order = 1 };
FIXTURE_VARIANT_ADD(hugetlb_fork_sizes, smaller) { .order = -1 };
FIXTURE_VARIANT_ADD(hugetlb_fork_sizes, control) { .order = 0 };

static int compare(size_t size)
{
	return (size > pmd_size()) - (size < pmd_size());
}

/* The smallest of the sizes that are meant, or 0. */
static size_t find_size(int order)
{
	DIR *dir = opendir(FOLDER);
	struct dirent *entry;
	size_t kib, found = 0;

	while (dir && (entry = readdir(dir)))
		if (sscanf(entry->d_name, "hugepages-%zukB", &kib) == 1 &&
		    compare(kib << 10) == order &&
		    (!found || kib << 10 < found))
			found = kib << 10;
	if (dir)
		closedir(dir);
	return found;
}

/* Have one more in a pool. The guardian restores its size. */
static bool grow(const char *folder, size_t size)
{
	char path[112], text[32];
	long nr;

	snprintf(path, sizeof(path), "%s/hugepages-%zukB/nr_hugepages", folder,
		 size >> 10);
	nr = file_read_long(path);
	snprintf(text, sizeof(text), "%ld", nr);
	if (nr < 0 || guard_undo(path, text))
		return false;
	snprintf(text, sizeof(text), "%ld", nr + 1);
	file_write(path, text);
	return file_read_long(path) > nr;
}

/* NULL if a page of @size is free, or a line that says that there is none. */
static const char *size_lacks(size_t size)
{
	struct bitmask *mems = numa_get_mems_allowed();
	static char why[160];
	char path[96];
	bool grown;
	int node;

	snprintf(path, sizeof(path), FOLDER "/hugepages-%zukB/free_hugepages",
		 size >> 10);
	grown = file_read_long(path) > 0;
	/*
	 * The size of all pools together is no good, where there are several:
	 * to write back what it was may take a page from any of them.
	 */
	for (node = 0; !grown && node <= numa_max_node(); node++) {
		snprintf(path, sizeof(path), NODE_FOLDER, node);
		grown = numa_bitmask_isbitset(mems, node) && grow(path, size);
	}
	numa_free_nodemask(mems);
	snprintf(path, sizeof(path), NODE_FOLDER, 0);
	if (grown || (access(path, F_OK) && grow(FOLDER, size)))
		return NULL;
	snprintf(why, sizeof(why),
		 "needs a free huge page of %zu KiB: hugepagesz=%zuK hugepages=1 on the kernel's command line",
		 size >> 10, size >> 10);
	return why;
}

FIXTURE_SETUP(hugetlb_fork_sizes)
{
	const char *why;
	void *addr;

	self->dir = -1;
	if (geteuid())
		SKIP(return, "needs root, for the pool of huge pages");
	self->size = find_size(variant->order);
	if (!self->size)
		SKIP(return, "no huge pages that are %s than those of %zu KiB",
		     variant->order < 0 ? "smaller" : "larger",
		     pmd_size() >> 10);
	why = guard_lacks() ?: size_lacks(self->size);
	if (why)
		SKIP(return, "%s", why);
	self->dir = mount_nowhere("ramfs", NULL);
	if (self->dir < 0)
		SKIP(return, "cannot mount ramfs: %s",
		     strerror(-self->dir));
	self->chunk = malloc(1 << 20);
	ASSERT_NE(NULL, self->chunk);
	memset(self->chunk, 1, 1 << 20);
	addr = mmap(NULL, self->size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB |
		    __builtin_ctzl(self->size) << SIZE_SHIFT, -1, 0);
	if (addr == MAP_FAILED)
		SKIP(return, "cannot have a huge page of %zu KiB: %s",
		     self->size >> 10, strerror(errno));
	self->page = addr;
	/* A control group may say no where the pool says yes: a signal else. */
	if (madvise(addr, self->size, MADV_POPULATE_WRITE) && errno != EINVAL)
		SKIP(return, "cannot fill a huge page of %zu KiB: %s",
		     self->size >> 10, strerror(errno));
	*self->page = MAGIC;
}

FIXTURE_TEARDOWN(hugetlb_fork_sizes)
{
	const char *why;

	if (self->page)
		munmap(self->page, self->size);
	if (self->dir >= 0)
		close(self->dir);
	why = guard_end(true);
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

/* Returns whether there was one. */
static bool have_page_cache(int dir, const char *chunk)
{
	int i, fd = openat(dir, "f", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	bool whole = fd >= 0;

	for (i = 0; i < CACHE_MIB && whole; i++)
		whole = write(fd, chunk, 1 << 20) == 1 << 20;
	if (fd >= 0)
		close(fd);
	unlinkat(dir, "f", 0);
	return whole;
}

TEST_F_TIMEOUT(hugetlb_fork_sizes, child_has_it, 120)
{
	long rounds = env_count("HUGETLB_FORK_ROUNDS", ROUNDS);
	long i = 0, empty = 0, killed = 0, failed = 0, lost;
	long oom_kills = vm_event("oom_kill");
	uint64_t start = cycles_clock();
	int status;
	pid_t pid;

	/* Where another page is free, each child that has lost its own clears it. */
	while (i < rounds && ms_since(start) < ENOUGH_MS) {
		if (i % EVERY == 0)
			ASSERT_TRUE(have_page_cache(self->dir, self->chunk));
		pid = fork();
		if (pid < 0 && (errno == EAGAIN || errno == ENOMEM)) {
			failed++;
			usleep(10 * 1000);
			continue;
		}
		ASSERT_GE(pid, 0);
		if (!pid)
			_exit(__atomic_load_n(self->page, __ATOMIC_RELAXED) !=
			      MAGIC);
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		/* It has found nothing yet: memory was short. */
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL &&
		    vm_event("oom_kill") > oom_kills) {
			oom_kills = vm_event("oom_kill");
			failed++;
			continue;
		}
		i++;
		killed += !!WIFSIGNALED(status);
		empty += WIFEXITED(status) && WEXITSTATUS(status);
	}
	lost = empty + killed;
	ksft_print_msg("hugetlb_fork_sizes: control=%s",
		       variant->order ? "no" : "yes");
	printf(" calls=%ld failed_calls=%ld migrations=%ld lost_migrations=%ld",
	       i + failed, failed, i, lost);
	printf(" kib=%zu empty=%ld killed=%ld\n", self->size >> 10, empty,
	       killed);
	EXPECT_EQ(0, lost)
		TH_LOG("of %ld children %ld found an empty page, and %ld were killed",
		       i, empty, killed);
	EXPECT_EQ(MAGIC, *self->page);
	if (!lost && *self->page == MAGIC && i < MIN_CHILDREN && i < rounds)
		SKIP(return, "inconclusive: memory for %ld children, and not for %ld",
		     i, failed);
}

TEST_HARNESS_MAIN
