// SPDX-License-Identifier: GPL-2.0
/*
 * Are all huge pages of a table unmapped when its only user unmaps it, also if
 * somebody looks at the table's page meanwhile?
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
 * A kernel that removes mapped pages from a file may crash. So if there are
 * such pages, a process stays that keeps the file.
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <numa.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/prctl.h>

#include "migrate_util.h"
#include "vm_util.h"

/* Write 1 there, and a reference is taken on each page that has one. */
#define LOOK_AT_ALL	"/sys/kernel/debug/split_huge_pages"

#define NR_PAGES	2	/* more than one, or a fault proves nothing */
#define MOUNT_PAGES	(2 * NR_PAGES)
#define SECONDS		10
#define ENOUGH_LOOKS	20	/* fewer are no evidence */
#define CHECK_EVERY	50	/* rounds */
#define STUCK_MS	20000

struct control {
	uint32_t stop;
	unsigned long looks;
	int error;		/* of the one who looks */
};

FIXTURE(hugetlb_pmd_count)
{
	struct control *control;
	char *area;		/* a PUD */
	int cpus[2];
	int node;
	int fd;
	struct crew crew;	/* the one who looks */
	int dir;		/* of the mount */
};

FIXTURE_VARIANT(hugetlb_pmd_count)
{
	bool looked_at;
};

/* First the one that nothing can be left of. */
FIXTURE_VARIANT_ADD(hugetlb_pmd_count, left_alone) { false };
FIXTURE_VARIANT_ADD(hugetlb_pmd_count, looked_at) { true };

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
	while (!__atomic_load_n(&control->stop, __ATOMIC_ACQUIRE)) {
		ret = file_write(LOOK_AT_ALL, "1");
		if (ret)
			crew_give_up(&control->error, -ret);
		count_up(&control->looks, 1);
	}
	_exit(0);
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
	char options[32];

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
	      pool_lacks(nodes, 1, NR_PAGES);
	if (why)
		SKIP(return, "%s", why);
	self->node = nodes[0];
	snprintf(options, sizeof(options), ",size=%zuK",
		 MOUNT_PAGES * pmd_size() >> 10);
	self->dir = hugetlbfs_mount(options);
	if (self->dir < 0)
		SKIP(return, "cannot mount hugetlbfs: %s",
		     strerror(-self->dir));
	ASSERT_EQ(MOUNT_PAGES, hugetlbfs_free(self->dir));
	self->fd = hugetlbfs_file(self->dir, pud_size());
	ASSERT_GE(self->fd, 0);
	why = area_lacks(&self->area, 1);
	if (why)
		SKIP(return, "%s", why);
	self->control = share_memory(sizeof(*self->control));
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

TEST_F_TIMEOUT(hugetlb_pmd_count, unmapped, 120)
{
	struct control *control = self->control;
	char *pages = self->area + first_page() * pmd_size();
	unsigned long start, rounds, ms = 0;
	int64_t pfns[NR_PAGES];
	long left = 0, count, has, faults;
	pid_t pid;
	int i;

	faults = faults_to_share(self->fd, self->area, PROT_READ | PROT_WRITE,
				 first_page(), NR_PAGES);
	ASSERT_LT(0, faults)
		TH_LOG("cannot map the file: %s", strerror(-faults));
	if (faults != 1)
		SKIP(return, "%s", not_shared(faults, NR_PAGES));

	ASSERT_EQ(0, map_pud(self->fd, self->area));
	touch_pages(pages, NR_PAGES);
	for (i = 0; i < NR_PAGES; i++) {
		pfns[i] = page_pfn(0, pages + i * pmd_size());
		ASSERT_GT(pfns[i], 0);
		ASSERT_EQ(1, map_count(pfns[i]));
	}
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
		for (i = 0; i < NR_PAGES; i++) {
			count = map_count(pfns[i]);
			ASSERT_GE(count, 0);
			left = MAX(left, count);
		}
		ASSERT_EQ(0, control->error)
			TH_LOG("cannot write to %s: %s", LOOK_AT_ALL,
			       strerror(control->error));
	}
	__atomic_store_n(&control->stop, 1, __ATOMIC_RELEASE);
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

	/* It is no matter of figures alone. */
	ASSERT_TRUE(crew_wait(&self->crew, STUCK_MS));
	ASSERT_EQ(0, crew_failed(&self->crew))
		TH_LOG("a process died");
	ASSERT_EQ(0, ftruncate(self->fd, 0));
	has = hugetlbfs_free(self->dir);
	EXPECT_EQ(MOUNT_PAGES, has)
		TH_LOG("%ld of %d pages free with nothing left in the file",
		       has, MOUNT_PAGES);
	/* Not after a failure: a skip would take its place. */
	if (variant->looked_at && has == MOUNT_PAGES &&
	    control->looks < ENOUGH_LOOKS)
		SKIP(return, "inconclusive: %lu looks at all pages",
		     control->looks);
}

TEST_HARNESS_MAIN
