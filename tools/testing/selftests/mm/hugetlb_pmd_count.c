// SPDX-License-Identifier: GPL-2.0
/*
 * Are all huge pages of a table unmapped when its only user unmaps it, also if
 * somebody looks at the table's page meanwhile, or if others fork?
 *
 * Page tables of hugetlb mappings can be shared, so to unmap one the kernel has
 * to know whether it has other users. If it has, the table is left to them as
 * it is:
 *
 *	shared				not shared
 *	clear the PUD			clear each entry, and give up the map
 *	count one user less		count and the reference of its page
 *
 * Some kernels use the reference count of the table's page as the count of its
 * users. But anybody may take a reference to a page for a moment, for instance
 * to go through all pages of the machine. For the last user they then do what
 * is on the left. The table goes with its entries in it, and its pages stay
 * mapped forever, by nobody.
 *
 * Here one process maps pages at the end of a PUD and unmaps them, in a loop:
 * all entries before them are looked at first. Another one has the kernel go
 * through all pages. At last the map count of the pages must be 0, and the mount
 * must have them again once the file is gone. It has a size, so it counts its
 * pages by itself, whatever others do with the pool meanwhile.
 *
 * fork(2) copies the entries of a table to that of the child, unless they are
 * one table. But the child may share the table of a third process:
 *
 *	parent				another, which mapped the file first
 *	maps the file: they share table T
 *	mprotect(PROT_READ): leaves T
 *	reads: has a table of its own
 *	mprotect(PROT_READ | PROT_WRITE)
 *	fork: the child could share
 *	either table, and finds T first
 *
 * A kernel that compares the tables of parent and child alone copies to T what is
 * there already, and maps each page once more. When the child is gone, nobody
 * takes that back. Here a process does this with some children, one after the
 * other. After each, the map count of the pages must be that of the tables.
 *
 * A kernel that removes mapped pages from a file may crash. So if there are
 * such pages, a process stays that keeps the file.
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <numa.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_page.h"
#include "migrate_race.h"
#include "migrate_util.h"
#include "vm_util.h"

/* Write 1 there, and a reference is taken on each page that has one. */
#define LOOK_AT_ALL	"/sys/kernel/debug/split_huge_pages"

#define NR_PAGES	2	/* more than one, or a fault proves nothing */
#define MOUNT_PAGES	(2 * NR_PAGES)
#define SECONDS		10
#define ENOUGH_LOOKS	20	/* fewer are no evidence */
#define CHECK_EVERY	50	/* rounds */
#define CHILDREN	10
#define FORK_TRIES	500	/* while there is no memory for one, 10 ms each */
#define STUCK_MS	20000

struct control {
	uint32_t mapped;	/* by the one who maps the file first */
	unsigned long looks;
};

FIXTURE(hugetlb_pmd_count)
{
	struct control *control;
	char *area;		/* a PUD */
	int cpus[2];
	int node;
	int fd;
	struct crew crew;	/* the one who looks, or maps */
	int dir;		/* of the mount */
};

FIXTURE_VARIANT(hugetlb_pmd_count)
{
	bool looked_at;
	bool forks;
	bool joins;		/* the child, a table that its parent has left */
};

/* First the one that nothing can be left of. */
FIXTURE_VARIANT_ADD(hugetlb_pmd_count, left_alone) { };
FIXTURE_VARIANT_ADD(hugetlb_pmd_count, looked_at) { .looked_at = true };
/* Here too: nobody else maps the file. */
FIXTURE_VARIANT_ADD(hugetlb_pmd_count, forked_alone) { .forks = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_count, forked) {
	.forks = true, .joins = true };

/* The last pages of a PUD begin with this one. */
static int first_page(void)
{
	return pud_size() / pmd_size() - NR_PAGES;
}

/* How many page tables map page frame @pfn, or -errno. */
static long map_count(int64_t pfn)
{
	uint64_t count;
	ssize_t got;
	int fd;

	fd = open("/proc/kpagecount", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	got = pread(fd, &count, sizeof(count), pfn * sizeof(count));
	close(fd);
	return got == sizeof(count) ? (long)count : -EIO;
}

static __noreturn void look_main(struct control *control, int cpu)
{
	int ret;

	pin_to_cpu(cpu);
	while (!stopped()) {
		ret = file_write(LOOK_AT_ALL, "1");
		if (ret)
			give_up(-ret);
		count_up(&control->looks, 1);
	}
	_exit(0);
}

/* The most of any page: how many tables map it, or -errno. */
static long most_mapped(const int64_t *pfns)
{
	long count, most = 0;
	int i;

	for (i = 0; i < NR_PAGES; i++) {
		count = map_count(pfns[i]);
		if (count < 0)
			return count;
		most = MAX(most, count);
	}
	return most;
}

/* Map the file first, and keep the table. */
static __noreturn void map_main(struct control *control, int fd, char *area)
{
	int error = map_pud(fd, area);

	if (error)
		give_up(error);
	touch_pages(area + first_page() * pmd_size(), NR_PAGES);
	__atomic_store_n(&control->mapped, 1, __ATOMIC_RELEASE);
	while (!stopped())
		usleep(1000);
	_exit(0);
}

static bool wait_until_mapped(const struct control *control)
{
	unsigned long start = cycles_clock();

	while (!__atomic_load_n(&control->mapped, __ATOMIC_ACQUIRE)) {
		if (race_error() || ms_since(start) > STUCK_MS)
			return false;
		usleep(1000);
	}
	return true;
}

/*
 * A child that looks at the pages and ends. It may have a copy of its parent's
 * entries, which takes no more page faults than a table that is shared. So it touches
 * the page before them, too. Whether @owner, 0 for this process, has that page then,
 * and had not before, is what counts: the two had one table. Returns that, or -errno.
 */
static int with_child(int fd, char *pages, pid_t owner)
{
	char *before = pages - pmd_size();
	bool there = page_pfn(owner, before) >= 0;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (!pid) {
		touch_pages(pages, NR_PAGES);
		touch_pages(before, 1);
		_exit(0);
	}
	if (waitpid(pid, NULL, 0) != pid)
		return -errno;
	there = !there && page_pfn(owner, before) >= 0;
	/* For the next child. Up to 4.2 it stays there, and the first one counts. */
	fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		  (first_page() - 1) * pmd_size(), pmd_size());
	return there;
}

/* Keep the file, and nothing else that somebody could wait for. */
static void keep_for_good(int file)
{
	int fd;

	if (fork())
		return;
	setsid();
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	prctl(PR_SET_NAME, "keep_hugetlb");
	for (fd = 0; fd < 1024; fd++)
		if (fd != file)
			close(fd);
	for (;;)
		pause();
}

FIXTURE_SETUP(hugetlb_pmd_count)
{
	int nr_cpus, nodes[2], fd;
	const char *why;

	self->fd = -1;
	self->dir = -1;
	if (geteuid())
		SKIP(return, "needs root, to see how often a page is mapped");
	nr_cpus = cpu_list(self->cpus, ARRAY_SIZE(self->cpus));
	if (nr_cpus < 2)
		SKIP(return, "needs two CPUs");
	/* A kernel that is locked down has the file, and nobody can open it. */
	fd = variant->looked_at ? open(LOOK_AT_ALL, O_WRONLY | O_CLOEXEC) : -1;
	if (variant->looked_at && fd < 0)
		SKIP(return, "cannot open %s: %s: needs debugfs (lockdown=none) and %s",
		     LOOK_AT_ALL, strerror(errno),
		     "CONFIG_TRANSPARENT_HUGEPAGE, since 4.5");
	if (fd >= 0)
		close(fd);
	if (access("/proc/kpagecount", R_OK))
		SKIP(return, "needs CONFIG_PROC_PAGE_MONITOR");
	why = nodes_lack(nodes, 1, self->cpus[0]) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 1, NR_PAGES + 1) ?:
	      mount_lacks(&self->dir, MOUNT_PAGES);
	if (why)
		SKIP(return, "%s", why);
	self->node = nodes[0];
	ASSERT_EQ(MOUNT_PAGES, hugetlbfs_free(self->dir));
	self->fd = hugetlbfs_file(self->dir, pud_size());
	ASSERT_GE(self->fd, 0);
	why = area_lacks(&self->area, 1);
	if (why)
		SKIP(return, "%s", why);
	self->control = race_begin(sizeof(*self->control));
	ASSERT_NE(NULL, self->control);
	/* Its pages are to come from the pool of this node. */
	numa_set_preferred(self->node);
	pin_to_cpu(self->cpus[0]);
}

FIXTURE_TEARDOWN(hugetlb_pmd_count)
{
	bool gone = crew_kill(&self->crew, STUCK_MS);
	const char *why;

	if (self->area)
		munmap(self->area, pud_size());
	if (self->fd >= 0)
		close(self->fd);
	if (self->dir >= 0)
		close(self->dir);
	/* The guardian must not wait for those who are stuck. */
	why = guard_end(gone);
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

/* It is no matter of figures alone. */
static void free_without_file(struct __test_metadata *_metadata,
			      FIXTURE_DATA(hugetlb_pmd_count) * self)
{
	long has;

	ASSERT_TRUE(crew_wait(&self->crew, STUCK_MS));
	ASSERT_EQ(0, crew_failed(&self->crew))
		TH_LOG("a process died");
	ASSERT_EQ(0, ftruncate(self->fd, 0));
	has = hugetlbfs_free(self->dir);
	EXPECT_EQ(MOUNT_PAGES, has)
		TH_LOG("%ld of %d pages free with nothing left in the file",
		       has, MOUNT_PAGES);
}

/* Have the pages in one table, this process's or the one that it shares. */
static void map_and_look(struct __test_metadata *_metadata,
			 FIXTURE_DATA(hugetlb_pmd_count) * self, int64_t *pfns)
{
	char *pages = self->area + first_page() * pmd_size();
	int i;

	ASSERT_EQ(0, map_pud(self->fd, self->area));
	touch_pages(pages, NR_PAGES);
	for (i = 0; i < NR_PAGES; i++) {
		pfns[i] = page_pfn(0, pages + i * pmd_size());
		ASSERT_GT(pfns[i], 0);
		ASSERT_EQ(1, map_count(pfns[i]));
	}
}

static void fork_children(struct __test_metadata *_metadata,
			  FIXTURE_DATA(hugetlb_pmd_count) * self, bool joins)
{
	char *pages = self->area + first_page() * pmd_size();
	struct control *control = self->control;
	long tables = joins ? 2 : 1, most, left, nobodys;
	int64_t pfns[NR_PAGES];
	int children = 0, shared = 0, failed = 0, ret;
	pid_t pid;

	if (joins) {
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (!pid)
			map_main(control, self->fd, self->area);
		ASSERT_TRUE(wait_until_mapped(control))
			TH_LOG("cannot map the file: %s",
			       strerror(race_error()));
	}
	map_and_look(_metadata, self, pfns);
	/* Leave the table, have another one, and be like the other again. */
	ASSERT_EQ(0, mprotect(self->area, pud_size(), PROT_READ));
	touch_pages(pages, NR_PAGES);
	ASSERT_EQ(0, mprotect(self->area, pud_size(), PROT_READ | PROT_WRITE));
	most = most_mapped(pfns);
	ASSERT_GE(most, 0);
	if (most != tables)
		SKIP(return, "inconclusive: in %ld tables, and not in %ld",
		     most, tables);

	while (children < CHILDREN && failed < FORK_TRIES) {
		ret = with_child(self->fd, pages,
				 joins ? self->crew.pids[0] : 0);
		if (ret == -EAGAIN || ret == -ENOMEM) {
			failed++;
			usleep(10 * 1000);
			continue;
		}
		ASSERT_GE(ret, 0);
		children++;
		shared += ret;
	}
	left = most_mapped(pfns) - tables;
	ASSERT_GE(left, 0);
	unmap_pud(self->area);
	race_stop();
	ASSERT_TRUE(crew_wait(&self->crew, STUCK_MS));
	nobodys = most_mapped(pfns);
	if (nobodys)
		keep_for_good(self->fd);

	ksft_print_msg("hugetlb_pmd_count: trigger=fork sharers=%d control=%s",
		       joins ? 2 : 1, joins ? "no" : "yes");
	printf(" calls=%d failed_calls=%d migrations=%d lost_migrations=%ld",
	       children + failed, failed, children, MAX(left, nobodys));
	printf(" shared=%d\n", shared);
	ASSERT_EQ(0, left)
		TH_LOG("mapped by %ld tables, and counted %ld times more, after %d children",
		       tables, left, children);
	ASSERT_EQ(0, nobodys)
		TH_LOG("mapped by nobody, and counted %ld times", nobodys);
	free_without_file(_metadata, self);
	/* Not after a failure: a skip would take its place. */
	if (!shared && __test_passed(_metadata))
		SKIP(return, "inconclusive: none of %d children shared a table",
		     children);
}

TEST_F_TIMEOUT(hugetlb_pmd_count, unmapped, 120)
{
	struct control *control = self->control;
	char *pages = self->area + first_page() * pmd_size();
	unsigned long start, rounds, ms = 0;
	int64_t pfns[NR_PAGES];
	long left = 0, faults;
	pid_t pid;
	int i;

	faults = faults_to_share(self->fd, self->area, PROT_READ | PROT_WRITE,
				 first_page(), NR_PAGES);
	ASSERT_LT(0, faults)
		TH_LOG("cannot map the file: %s", strerror(-faults));
	if (faults != 1)
		SKIP(return, "%s", not_shared(faults, NR_PAGES));

	if (variant->forks) {
		fork_children(_metadata, self, variant->joins);
		return;
	}

	map_and_look(_metadata, self, pfns);
	unmap_pud(self->area);

	if (variant->looked_at) {
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (!pid)
			look_main(control, self->cpus[1]);
	}
	start = cycles_clock();
	for (rounds = 0; !left && ms < SECONDS * 1000; ms = ms_since(start)) {
		for (i = 0; i < CHECK_EVERY; i++, rounds++) {
			ASSERT_EQ(0, map_pud(self->fd, self->area));
			touch_pages(pages, NR_PAGES);
			unmap_pud(self->area);
		}
		/* Each time that the table is left maps each page once more. */
		left = most_mapped(pfns);
		ASSERT_GE(left, 0);
		ASSERT_EQ(0, race_error())
			TH_LOG("cannot write to %s: %s", LOOK_AT_ALL,
			       strerror(race_error()));
	}
	race_stop();
	if (left)
		keep_for_good(self->fd);

	ksft_print_msg("hugetlb_pmd_count: trigger=%s sharers=1 control=%s",
		       variant->looked_at ? "split_huge_pages" : "none",
		       variant->looked_at ? "no" : "yes");
	printf(" calls=%lu failed_calls=0 migrations=%lu lost_migrations=%ld",
	       rounds, rounds, left);
	printf(" first_ms=%lu looks=%lu\n", left ? ms : 0, control->looks);
	ASSERT_EQ(0, left)
		TH_LOG("mapped by nobody, and counted %ld times: after %lu rounds, %lu looks",
		       left, rounds, control->looks);

	free_without_file(_metadata, self);
	/* Not after a failure: a skip would take its place. */
	if (variant->looked_at && control->looks < ENOUGH_LOOKS &&
	    __test_passed(_metadata))
		SKIP(return, "inconclusive: %lu looks at all pages",
		     control->looks);
}

TEST_HARNESS_MAIN
