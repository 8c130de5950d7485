// SPDX-License-Identifier: GPL-2.0
/*
 * Can a THP be moved away when parts of it are mapped by PTEs?
 *
 * Whoever needs much contiguous memory isolates the pages that are in the way,
 * to migrate them. An anonymous page that has more references than mappings is
 * pinned, so it is left alone. But a THP that is mapped by PTEs in one process,
 * as it is after copy-on-write or mprotect() of a part, has a reference for
 * each of them: 511 after a write to one sub-page. Where only the mappings of
 * the head page are counted, such a THP looks pinned and is never moved.
 *
 * The test puts THPs where somebody will want the memory, splits their mappings
 * in one of several ways, and asks for the memory:
 *
 *	gigantic	a huge page of 1 GiB, which is made from the memory that
 *			hugetlb_cma= has set apart and lent to movable pages
 *	virtio_mem	the virtual machine is to give back memory that it got
 *
 * Whoever looks at a page has a reference to it for a moment, and a request that
 * comes just then fails. So it is made some times before it counts as failed.
 *
 * THPs that are really pinned must stay where they are. That a request failed
 * because of the THPs, and for no other reason, shows when they are gone: the
 * same request is then made once more.
 *
 * Environment:
 *	THP_COW_ISOLATION_ROUNDS=n	requests for each variant
 *	VIRTIO_MEM_QMP, VIRTIO_MEM_ID	see migrate_virtio_mem.h
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <numa.h>
#include <numaif.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "migrate_guard.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "migrate_virtio_mem.h"
#include "vm_util.h"

#define MIB			(1024 * 1024ul)
#define GIB			(1024 * MIB)
#define MAX_THPS		640
#define ROUNDS			1
/* Of what is lent, at least so much is to be in use by the THPs. */
#define WANTED_MIB		64
#define VIRTIO_MIB		256
#define VIRTIO_THPS		16
#define UNPLUG_SECONDS		3
#define TRIES			3	/* a reference of anybody, for a moment, is in the way */
#define TEST_MS			60000	/* no round begins later */
#define PLUG_SECONDS		20	/* what is plugged may have to be poisoned */
/* A sub-page that nobody writes to: it stays in the THP. */
#define SUBPAGE			16
#define PIPE_SLOTS		256
/*
 * Of linux/io_uring.h, which needs types that tools/include has otherwise: the
 * size of struct io_uring_params, and two operations of io_uring_register(2).
 */
#define URING_PARAMS_BYTES	120
#define URING_REGISTER_BUFFERS	0
#define URING_UNREGISTER_BUFFERS	1

enum trigger { GIGANTIC, VIRTIO_MEM };
enum cause {
	CHILD_WAITS, CHILD_WRITES, CHILD_WRITES_SUBPAGE, PARENT_WRITES, MPROTECT,
	VMSPLICE, IO_URING,
};

static const char * const trigger_name[] = { "gigantic", "virtio_mem" };

FIXTURE(thp_cow_isolation)
{
	int node;
	char pool[96];		/* of gigantic pages */
	struct virtio_mem vm;

	char *area;
	int nr;			/* THPs */
	int64_t pfns[MAX_THPS];
	pid_t child;
	int fds[8];		/* that pin pages */
	int nr_fds;
	int uring;		/* one of them, or 0 */
};

FIXTURE_VARIANT(thp_cow_isolation)
{
	enum trigger trigger;
};

FIXTURE_VARIANT_ADD(thp_cow_isolation, gigantic) { .trigger = GIGANTIC };
FIXTURE_VARIANT_ADD(thp_cow_isolation, virtio_mem) { .trigger = VIRTIO_MEM };

static long meminfo_kib(const char *name)
{
	char line[128], key[64];
	long nr, found = -1;
	FILE *f;

	f = fopen("/proc/meminfo", "r");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%63[^:]: %ld", key, &nr) == 2 &&
		    !strcmp(key, name))
			found = nr;
	if (f)
		fclose(f);
	return found;
}

static bool want_gigantic(const char *pool)
{
	return !file_write(pool, "1") && file_read_long(pool) == 1;
}

/* A node where a gigantic page can be had, while nothing is in the way. */
static int gigantic_node(char *pool, size_t len)
{
	bool found;
	int node;

	for (node = numa_max_node(); node >= 0; node--) {
		snprintf(pool, len, "%s/node%d/hugepages/%s/nr_hugepages",
			 "/sys/devices/system/node", node,
			 "hugepages-1048576kB");
		if (file_read_long(pool))
			continue;
		/* First: it may be killed at any time from here on. */
		if (guard_undo(pool, "0"))
			continue;
		found = want_gigantic(pool);
		file_write(pool, "0");
		if (found)
			return node;
	}
	return -1;
}

FIXTURE_SETUP(thp_cow_isolation)
{
	const char *why;
	char text[64];

	if (geteuid())
		SKIP(return, "needs root");
	if (numa_available() < 0)
		SKIP(return, "needs CONFIG_NUMA");
	if (file_read("/sys/kernel/mm/transparent_hugepage/enabled", text,
		      sizeof(text)))
		SKIP(return, "needs CONFIG_TRANSPARENT_HUGEPAGE");
	if (strstr(text, "[never]"))
		SKIP(return, "needs THPs: transparent_hugepage=madvise");

	why = guard_lacks();
	if (why)
		SKIP(return, "%s", why);
	if (variant->trigger == GIGANTIC) {
		if (meminfo_kib("CmaTotal") < (long)(GIB >> 10))
			SKIP(return, "needs lent memory: boot with hugetlb_cma=2G");
		self->node = gigantic_node(self->pool, sizeof(self->pool));
		if (self->node < 0)
			SKIP(return, "no gigantic page can be had: boot with hugetlb_cma=2G");
	} else {
		why = virtio_mem_lacks(&self->vm);
		if (why)
			SKIP(return, "%s", why);
		self->node = self->vm.node;
	}
}

static void drop_pages(FIXTURE_DATA(thp_cow_isolation) * self)
{
	if (self->child > 0) {
		kill(self->child, SIGKILL);
		waitpid(self->child, NULL, 0);
	}
	self->child = 0;
	/* When it is closed, the pages are given back at some later time. */
	if (self->uring)
		syscall(SYS_io_uring_register, self->uring,
			URING_UNREGISTER_BUFFERS, NULL, 0);
	self->uring = 0;
	while (self->nr_fds)
		close(self->fds[--self->nr_fds]);
	if (self->area)
		munmap(self->area, MAX_THPS * pmd_size());
	self->area = NULL;
	self->nr = 0;
}

FIXTURE_TEARDOWN(thp_cow_isolation)
{
	drop_pages(self);
	virtio_mem_close(&self->vm, UNPLUG_SECONDS);
	if (self->pool[0])
		file_write(self->pool, "0");
	guard_stop();
}

static char *thp(FIXTURE_DATA(thp_cow_isolation) * self, int nr)
{
	return self->area + nr * pmd_size();
}

/* What is to stay in each THP, and to be there after it was moved. */
static uint64_t *word(FIXTURE_DATA(thp_cow_isolation) * self, int nr)
{
	return (uint64_t *)(thp(self, nr) + SUBPAGE * psize());
}

static int64_t pfn_of(FIXTURE_DATA(thp_cow_isolation) * self, int nr)
{
	return page_pfn(0, word(self, nr));
}

static bool in_device(FIXTURE_DATA(thp_cow_isolation) * self, int nr)
{
	uint64_t pfn = self->pfns[nr];

	return pfn >= self->vm.first_pfn && pfn <= self->vm.last_pfn;
}

/*
 * Map THPs on the node, until enough of them are where somebody will want the
 * memory. Returns NULL or why that cannot be.
 */
static const char *fill(FIXTURE_DATA(thp_cow_isolation) * self,
			enum trigger trigger)
{
	size_t bytes = MAX_THPS * pmd_size();
	long cma_before = meminfo_kib("CmaFree");
	int nr, placed = 0;
	char *at;

	at = mmap(NULL, bytes + pmd_size(), PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		return "no address space";
	self->area = (char *)(((uintptr_t)at + pmd_size() - 1) &
			      ~(pmd_size() - 1));
	if (self->area > at)
		munmap(at, self->area - at);
	munmap(self->area + bytes, at + pmd_size() - self->area);
	if (madvise(self->area, bytes, MADV_HUGEPAGE) ||
	    bind_range(self->area, bytes, self->node, 0))
		return "madvise() or mbind() failed";

	for (nr = 0; nr < MAX_THPS; nr++) {
		*word(self, nr) = nr + 1;
		self->nr = nr + 1;
		self->pfns[nr] = pfn_of(self, nr);
		if (self->pfns[nr] < 0)
			return "/proc/self/pagemap shows no page frames";
		if (self->pfns[nr] - page_pfn(0, thp(self, nr)) != SUBPAGE ||
		    page_pfn(0, thp(self, nr)) % (pmd_size() / psize()))
			return "THPs cannot be had";
		if (trigger == VIRTIO_MEM) {
			placed += in_device(self, nr);
			if (placed == VIRTIO_THPS)
				return NULL;
		} else if (cma_before - meminfo_kib("CmaFree") >=
			   (long)(WANTED_MIB * MIB >> 10)) {
			return NULL;
		}
	}
	return "the THPs are not where they are wanted";
}

static void write_to_each(FIXTURE_DATA(thp_cow_isolation) * self, int subpage)
{
	int nr;

	for (nr = 0; nr < self->nr; nr++)
		*(uint64_t *)(thp(self, nr) + subpage * psize() + 64) = nr;
}

static bool fork_child(FIXTURE_DATA(thp_cow_isolation) * self, enum cause cause)
{
	pid_t parent = getpid();
	int ready[2];
	char c;

	if (pipe(ready))
		return false;
	self->child = fork();
	if (!self->child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		if (cause == CHILD_WRITES)
			write_to_each(self, 0);
		if (cause == CHILD_WRITES_SUBPAGE)
			write_to_each(self, 5);
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	if (self->child < 0 || read(ready[0], &c, 1) != 1) {
		close(ready[0]);
		return false;
	}
	close(ready[0]);
	return true;
}

/* A pipe holds a reference to each page that was spliced into it. */
static bool pin_with_vmsplice(FIXTURE_DATA(thp_cow_isolation) * self)
{
	int nr, fds[2] = { -1, -1 };

	for (nr = 0; nr < self->nr; nr++) {
		struct iovec iov = { word(self, nr), sizeof(uint64_t) };

		if (!(nr % PIPE_SLOTS)) {
			if (self->nr_fds + 2 > (int)ARRAY_SIZE(self->fds) ||
			    pipe2(fds, O_CLOEXEC))
				return false;
			self->fds[self->nr_fds++] = fds[0];
			self->fds[self->nr_fds++] = fds[1];
			if (fcntl(fds[1], F_SETPIPE_SZ, PIPE_SLOTS * psize()) < 0)
				return false;
		}
		if (vmsplice(fds[1], &iov, 1, SPLICE_F_NONBLOCK) !=
		    sizeof(uint64_t))
			return false;
	}
	return true;
}

/* Returns -1 where there is no io_uring. */
static int pin_with_io_uring(FIXTURE_DATA(thp_cow_isolation) * self)
{
	uint64_t params[URING_PARAMS_BYTES / sizeof(uint64_t)] = { };
	struct iovec iov[MAX_THPS];
	int nr, fd;

	fd = syscall(SYS_io_uring_setup, 4, params);
	if (fd < 0)
		return -1;
	self->fds[self->nr_fds++] = fd;
	for (nr = 0; nr < self->nr; nr++) {
		iov[nr].iov_base = thp(self, nr) + SUBPAGE * psize();
		iov[nr].iov_len = psize();
	}
	if (syscall(SYS_io_uring_register, fd, URING_REGISTER_BUFFERS, iov,
		    self->nr))
		return 0;
	self->uring = fd;
	/* It may have moved them itself, to where they can stay for long. */
	for (nr = 0; nr < self->nr; nr++) {
		self->pfns[nr] = pfn_of(self, nr);
		if (self->pfns[nr] < 0)
			return 0;
	}
	return 1;
}

/* How many are no longer where they were. */
static int moved_thps(FIXTURE_DATA(thp_cow_isolation) * self)
{
	int nr, moved = 0;
	int64_t pfn;

	for (nr = 0; nr < self->nr; nr++) {
		pfn = pfn_of(self, nr);
		/* Where it is may not be known for a moment. */
		moved += pfn > 0 && pfn != self->pfns[nr];
	}
	return moved;
}

static bool ask_once(FIXTURE_DATA(thp_cow_isolation) * self,
		     enum trigger trigger)
{
	bool given;

	if (trigger == VIRTIO_MEM)
		return virtio_mem_request(&self->vm, 0, UNPLUG_SECONDS);
	given = want_gigantic(self->pool);
	file_write(self->pool, "0");
	return given;
}

/* The time that it takes is added to @ms. */
static bool ask_for_memory(FIXTURE_DATA(thp_cow_isolation) * self,
			   enum trigger trigger, int tries, long *ms)
{
	uint64_t began = cycles_clock();
	bool given = false;

	while (!given && tries--)
		given = ask_once(self, trigger);
	*ms += ms_since(began);
	return given;
}

static void ask_with(struct __test_metadata *_metadata,
		     FIXTURE_DATA(thp_cow_isolation) * self,
		     const FIXTURE_VARIANT(thp_cow_isolation) * variant,
		     enum cause cause)
{
	long rounds = env_count("THP_COW_ISOLATION_ROUNDS", ROUNDS);
	bool pinned = cause == VMSPLICE || cause == IO_URING;
	bool control = pinned || cause == CHILD_WAITS;
	int calls = 0, asked = 0, left = 0, moved = 0, thps = 0, nr, ret;
	uint64_t start = cycles_clock();
	const char *why = NULL;
	long ms = 0, last_ms = 0;

	for (calls = 0; calls < rounds && ms_since(start) < TEST_MS; calls++) {
		bool given;
		int went;

		if (variant->trigger == VIRTIO_MEM &&
		    !virtio_mem_plug(&self->vm, VIRTIO_MIB * MIB,
				     PLUG_SECONDS)) {
			why = "memory could not be plugged";
			break;
		}
		why = fill(self, variant->trigger);
		if (why)
			break;
		thps += self->nr;

		switch (cause) {
		case CHILD_WAITS:
		case CHILD_WRITES:
		case CHILD_WRITES_SUBPAGE:
			ASSERT_TRUE(fork_child(self, cause));
			break;
		case PARENT_WRITES:
			ASSERT_TRUE(fork_child(self, cause));
			write_to_each(self, 0);
			break;
		case MPROTECT:
			for (nr = 0; nr < self->nr; nr++)
				ASSERT_EQ(0, mprotect(thp(self, nr) + 8 * psize(),
						      psize(), PROT_READ));
			break;
		case VMSPLICE:
			ASSERT_TRUE(pin_with_vmsplice(self));
			break;
		case IO_URING:
			ret = pin_with_io_uring(self);
			if (ret < 0 && !left)
				SKIP(return, "needs CONFIG_IO_URING");
			ASSERT_LT(0, ret);
			break;
		}
		/* By compaction or khugepaged, say, which may be right. */
		if (moved_thps(self)) {
			why = "a THP was moved before anybody asked for it";
			drop_pages(self);
			break;
		}

		/* Who has them pinned is in the way each time. */
		given = ask_for_memory(self, variant->trigger,
				       pinned ? 1 : TRIES, &ms);
		went = moved_thps(self);
		moved += went;
		for (nr = 0; nr < self->nr; nr++)
			ASSERT_EQ(nr + 1, *word(self, nr))
				TH_LOG("THP %d has other contents than before", nr);

		if (pinned) {
			EXPECT_EQ(0, went)
				TH_LOG("%d pinned THPs were moved", went);
			left += went;
		}
		/* Without them it must work, or they were not the reason. */
		drop_pages(self);
		if (given) {
			asked++;
			if (!pinned && !went)
				why = "no THP was in the way";
			if (cause == VMSPLICE && !went)
				why = "no pinned THP was in the way";
			if (why)
				break;
			continue;
		}
		if (!ask_for_memory(self, variant->trigger, TRIES, &last_ms)) {
			why = "nor without the THPs";
			break;
		}
		asked++;
		left += !pinned;
	}

	ksft_print_msg("thp_cow_isolation: trigger=%s sharers=1 control=%s calls=%d",
		       trigger_name[variant->trigger], control ? "yes" : "no",
		       calls);
	printf(" migrations=%d lost_migrations=%d thps=%d moved=%d ms=%ld\n",
	       asked, left, thps, moved, ms);
	if (!pinned)
		EXPECT_EQ(0, left)
			TH_LOG("%d of %d requests failed %d times each, until the THPs were gone",
			       left, asked, TRIES);
	/* Not after a failure, of whatever round: a skip would take its place. */
	if (why && !left)
		SKIP(return, "inconclusive: %s (%d THPs on node %d)", why, thps,
		     self->node);
}

TEST_F_TIMEOUT(thp_cow_isolation, child_waits, 120)
{
	ask_with(_metadata, self, variant, CHILD_WAITS);
}

TEST_F_TIMEOUT(thp_cow_isolation, child_writes, 120)
{
	ask_with(_metadata, self, variant, CHILD_WRITES);
}

TEST_F_TIMEOUT(thp_cow_isolation, child_writes_subpage, 120)
{
	ask_with(_metadata, self, variant, CHILD_WRITES_SUBPAGE);
}

TEST_F_TIMEOUT(thp_cow_isolation, parent_writes, 120)
{
	ask_with(_metadata, self, variant, PARENT_WRITES);
}

TEST_F_TIMEOUT(thp_cow_isolation, mprotect, 120)
{
	ask_with(_metadata, self, variant, MPROTECT);
}

TEST_F_TIMEOUT(thp_cow_isolation, vmsplice, 120)
{
	ask_with(_metadata, self, variant, VMSPLICE);
}

TEST_F_TIMEOUT(thp_cow_isolation, io_uring, 120)
{
	ask_with(_metadata, self, variant, IO_URING);
}

TEST_HARNESS_MAIN
