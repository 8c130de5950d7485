// SPDX-License-Identifier: GPL-2.0
/*
 * Is what a hugetlb file had in memory that failed reported as lost, to all who
 * ask for it?
 *
 * When memory fails, memory_failure() takes the page from those who map it, who
 * get SIGBUS. But others come later: new mappings of the file, and read(2). If
 * the page is no longer in the page cache, both find a hole, and zeroes in
 * place of the data. If it is and nobody looks at it, they get what is in
 * memory that is known to be broken.
 *
 *			page 0		page 1		page 2
 *			data		poisoned	data
 *	new mapping	data		SIGBUS		data
 *	read(2)		data		EIO		data
 *
 * and once a hole is punched where page 1 was, it is empty, with no error.
 *
 * A mapping of so few pages is in no shared page table, where the entry of the
 * poisoned page could be found that another process left there.
 *
 * Environment:
 *	HUGETLB_PMD_MIGRATE_OFFLINE=1	run it at all: poisons memory, which
 *					only the lab's guest has to spare
 *	HUGETLB_POISON_READ_LEAVE=1	where the poison cannot be taken back,
 *					leave it: the pages are lost until the
 *					next boot
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <numa.h>
#include <sched.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_memory.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define NR_PAGES	3
#define BAD_PAGE	1
#define MAGIC		0x6c6f737400000000ull

enum look { BY_MAPPING, BY_READ };

/* What one look at a page came to. */
struct seen {
	int error;		/* si_code of the signal or errno, 0 for none */
	uint64_t value;		/* that was found */
};

FIXTURE(hugetlb_poison_read)
{
	struct seen *seen;	/* shared with the child that looks */
	char *addr;		/* the mapping of this process */
	int fd;
	bool leave;		/* the poison stays: nothing can take it back */
};

FIXTURE_VARIANT(hugetlb_poison_read)
{
	enum look look;
	int map;		/* MAP_SHARED or MAP_PRIVATE, for a mapping */
};

FIXTURE_VARIANT_ADD(hugetlb_poison_read, shared_mapping) {
	BY_MAPPING, MAP_SHARED };
FIXTURE_VARIANT_ADD(hugetlb_poison_read, private_mapping) {
	BY_MAPPING, MAP_PRIVATE };
FIXTURE_VARIANT_ADD(hugetlb_poison_read, read) {
	BY_READ, 0 };

static sigjmp_buf on_sigbus;
static bool looks;

static void sigbus(int sig, siginfo_t *info, void *ctx)
{
	/* From 6.9 on, who poisons a page of his own is told so by SIGBUS. */
	if (__atomic_load_n(&looks, __ATOMIC_RELAXED))
		siglongjmp(on_sigbus, info->si_code);
}

static void catch_sigbus(void)
{
	struct sigaction action = {
		.sa_sigaction = sigbus,
		.sa_flags = SA_SIGINFO,
	};

	sigaction(SIGBUS, &action, NULL);
}

static uint64_t magic(int page)
{
	return MAGIC + page;
}

/* In a process of its own, which has mapped nothing of the file before. */
static __noreturn void look_main(struct seen *seen, int fd, int map)
{
	uint64_t *word;
	char *addr;
	int i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	catch_sigbus();
	addr = mmap(NULL, NR_PAGES * pmd_size(), PROT_READ, map, fd, 0);
	if (addr == MAP_FAILED)
		_exit(1);
	__atomic_store_n(&looks, true, __ATOMIC_RELAXED);
	for (i = 0; i < NR_PAGES; i++) {
		seen[i].error = sigsetjmp(on_sigbus, 1);
		if (seen[i].error)
			continue;
		word = (uint64_t *)(addr + i * pmd_size());
		seen[i].value = __atomic_load_n(word, __ATOMIC_RELAXED);
	}
	_exit(0);
}

/* Look at the first word of every page. Returns false if that cannot be. */
static bool look_at_all(struct seen *seen, int fd, enum look look, int map)
{
	int i, status;
	ssize_t got;
	pid_t pid;

	memset(seen, 0, NR_PAGES * sizeof(*seen));
	if (look == BY_MAPPING) {
		pid = fork();
		if (!pid)
			look_main(seen, fd, map);
		return pid > 0 && waitpid(pid, &status, 0) == pid && !status;
	}
	for (i = 0; i < NR_PAGES; i++) {
		got = pread(fd, &seen[i].value, sizeof(seen[i].value),
			    i * pmd_size());
		if (got < 0)
			seen[i].error = errno;
		else if (got != sizeof(seen[i].value))
			return false;
	}
	return true;
}

FIXTURE_SETUP(hugetlb_poison_read)
{
	int i, nodes[2];
	const char *why;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, to poison memory");
	if (!env_long("HUGETLB_PMD_MIGRATE_OFFLINE", 0))
		SKIP(return, "poisons memory: HUGETLB_PMD_MIGRATE_OFFLINE=1 allows it");
	why = unpoison_lacks();
	self->leave = why && env_long("HUGETLB_POISON_READ_LEAVE", 0);
	if (why && !self->leave)
		SKIP(return, "%s, or HUGETLB_POISON_READ_LEAVE=1 to leave it",
		     why);
	why = nodes_lack(nodes, 1, sched_getcpu()) ?:
	      guard_lacks();
	if (why)
		SKIP(return, "%s", why);
	why = pool_lacks(nodes, 1, 2 * NR_PAGES);
	/*
	 * A page that was left poisoned is in use for good. It was surplus, as
	 * the pool was emptied; who asks the pool to grow gets it first, and
	 * has to ask for another.
	 */
	if (why && self->leave)
		why = pool_lacks(nodes, 1, 2 * NR_PAGES);
	why = why ?: file_lacks(&self->fd, NR_PAGES * pmd_size());
	if (why)
		SKIP(return, "%s", why);
	self->seen = share_memory(NR_PAGES * sizeof(*self->seen));
	ASSERT_NE(NULL, self->seen);
	self->addr = mmap(NULL, NR_PAGES * pmd_size(), PROT_READ | PROT_WRITE,
			  MAP_SHARED, self->fd, 0);
	ASSERT_NE(MAP_FAILED, self->addr);
	for (i = 0; i < NR_PAGES; i++)
		*(uint64_t *)(self->addr + i * pmd_size()) = magic(i);
}

FIXTURE_TEARDOWN(hugetlb_poison_read)
{
	if (self->addr && self->addr != MAP_FAILED)
		munmap(self->addr, NR_PAGES * pmd_size());
	/* The poison cannot be taken back while the file has the page. */
	if (self->fd >= 0)
		close(self->fd);
	guard_stop();
}

TEST_F(hugetlb_poison_read, is_reported)
{
	char *bad = self->addr + BAD_PAGE * pmd_size();
	bool by_read = variant->look == BY_READ;
	struct seen *seen = self->seen;
	int want = by_read ? EIO : BUS_MCEERR_AR;
	int ret, error, i;
	char value[32], *buf;
	int64_t pfn;
	ssize_t got;

	/* That it can be looked at so is to be seen first. */
	ASSERT_TRUE(look_at_all(seen, self->fd, variant->look, variant->map));
	for (i = 0; i < NR_PAGES; i++)
		ASSERT_EQ(magic(i), seen[i].value);

	pfn = page_pfn(0, bad);
	ASSERT_GT(pfn, 0);
	snprintf(value, sizeof(value), "0x%llx", (unsigned long long)pfn);
	if (!self->leave)
		ASSERT_EQ(0, guard_undo(UNPOISON_PFN, value));
	catch_sigbus();
	ret = madvise(bad, psize(), MADV_HWPOISON);
	error = errno;
	/* Busy: all was done, but somebody had a reference to it. */
	if (ret && error != EBUSY)
		SKIP(return, "MADV_HWPOISON does not work here: %s",
		     strerror(error));

	ASSERT_TRUE(look_at_all(seen, self->fd, variant->look, variant->map));
	ksft_print_msg("hugetlb_poison_read: look=%s control=no",
		       by_read ? "read" : "mapping");
	printf(" calls=1 failed_calls=0 migrations=1 lost_migrations=%d\n",
	       !seen[BAD_PAGE].error);
	EXPECT_EQ(want, seen[BAD_PAGE].error)
		TH_LOG("page %d, poisoned in frame 0x%llx, gave 0x%llx: %s",
		       BAD_PAGE, (unsigned long long)pfn,
		       (unsigned long long)seen[BAD_PAGE].value,
		       seen[BAD_PAGE].error ? "another error" :
		       seen[BAD_PAGE].value == magic(BAD_PAGE) ?
		       "it was read from memory that is broken" :
		       "an empty page took its place");
	for (i = 0; i < NR_PAGES; i++) {
		if (i == BAD_PAGE)
			continue;
		EXPECT_EQ(0, seen[i].error);
		EXPECT_EQ(magic(i), seen[i].value);
	}

	if (by_read) {
		/*
		 * One call for all three pages: what is before the poison, or
		 * an error, as from 6.2 on; never what is beyond.
		 */
		buf = malloc(NR_PAGES * pmd_size());
		ASSERT_NE(NULL, buf);
		got = pread(self->fd, buf, NR_PAGES * pmd_size(), 0);
		if (got >= 0 || errno != EIO)
			EXPECT_EQ(BAD_PAGE * pmd_size(), got)
				TH_LOG("read(2) did not end at the poisoned page");
		free(buf);
	}

	/* Whoever gives the page up has an empty one, and no error. */
	ASSERT_EQ(0, fallocate(self->fd,
			       FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       BAD_PAGE * pmd_size(), pmd_size()));
	ASSERT_TRUE(look_at_all(seen, self->fd, variant->look, variant->map));
	for (i = 0; i < NR_PAGES; i++) {
		EXPECT_EQ(0, seen[i].error);
		EXPECT_EQ(i == BAD_PAGE ? 0 : magic(i), seen[i].value)
			TH_LOG("page %d after a hole was punched at page %d", i,
			       BAD_PAGE);
	}
}

TEST_HARNESS_MAIN
