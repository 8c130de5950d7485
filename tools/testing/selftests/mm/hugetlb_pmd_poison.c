// SPDX-License-Identifier: GPL-2.0
/*
 * Does hard offlining take a poisoned hugetlb page from every process, when
 * those processes share the PMD page table that maps it?
 *
 * memory_failure() unmaps the page by the same reverse map walk as migration
 * does (see hugetlb_pmd_migrate.c). A kernel that trusts the map count of a
 * page in a shared table flushes one process, and all others go on to read and
 * write memory that is known to be broken. They are to get SIGBUS at their next
 * access.
 *
 * When the page has been unmapped is seen by a second thread of the process
 * that poisons it, the one that every kernel flushes: it reads the page until
 * it gets SIGBUS. To wait for the call to return would be too late. There are
 * kernels that make every CPU run a worker before that, and a TLB may not
 * outlive the switch. It then maps the file once more. For that it has to wait
 * until the walk is over: a kernel may flush the processes one after the other,
 * and while it does, some get SIGBUS and some do not yet.
 *
 * Environment:
 *	HUGETLB_PMD_MIGRATE_OFFLINE=1	run it at all: poisons memory, which
 *					only the lab's guest has to spare
 */
#include "kselftest_harness.h"

#include <numa.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_memory.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define NR_PAGES	2	/* more than one, or a fault proves nothing */
#define MAX_SHARERS	4
#define HOT_WRITES	10000
#define COLD_WRITES	100000	/* once it is poisoned: enough to know */
#define MAGIC		0x706f69736f6e6564ull
#define MAGIC_WORD	256	/* not in the line that sharers write to */
#define STEP_TIMEOUT_MS	20000

struct sharer {
	uint32_t state;		/* 1: at it, 2: done */
	int error;		/* errno of the mapping */
	long faults;		/* to touch all pages the first time */
	uint64_t after;		/* accesses once the page was unmapped */
	int code;		/* si_code of the signal, 0 for none */
	bool fresh;		/* found another page in its place */
};

struct control {
	uint32_t go;
	uint32_t poisoned;	/* and unmapped */
	struct sharer sharers[MAX_SHARERS];
};

FIXTURE(hugetlb_pmd_poison)
{
	struct control *control;
	char *area;		/* address space, a PUD for each sharer */
	int fd;
	int cpus[CPU_SETSIZE];
	int nr_cpus;
	pid_t pids[MAX_SHARERS];
	char *addr;		/* the mapping of this process */
	int watch_code;		/* si_code of the watcher's signal */
	bool watch_fresh;	/* it found another page in its place */
	int watch_error;	/* errno of its other mapping */
};

FIXTURE_VARIANT(hugetlb_pmd_poison)
{
	int sharers;		/* this process included */
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_poison, 2) { .sharers = 2 };
FIXTURE_VARIANT_ADD(hugetlb_pmd_poison, 3) { .sharers = 3 };

static __thread sigjmp_buf on_sigbus;
static __thread bool reads_page;

static void sigbus(int sig, siginfo_t *info, void *ctx)
{
	/* From 6.9 on, who poisons a page of his own is told so by SIGBUS. */
	if (reads_page)
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

static bool magic_is_there(char *addr)
{
	return __atomic_load_n((uint64_t *)addr + MAGIC_WORD,
			       __ATOMIC_ACQUIRE) == MAGIC;
}

static __noreturn void sharer_main(struct control *control, int nr, int fd,
				   char *addr, int cpu, pid_t parent)
{
	struct sharer *me = &control->sharers[nr];
	uint64_t *word = (uint64_t *)addr + nr;
	uint64_t n;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	pin_to_cpu(cpu);
	catch_sigbus();
	wait_for_change(&control->go, 0);

	me->error = map_pud(fd, addr);
	if (me->error) {
		set_and_wake(&me->state, 2);
		_exit(0);
	}
	me->faults = touch_pages(addr, NR_PAGES);

	reads_page = true;
	me->code = sigsetjmp(on_sigbus, 1);
	for (n = 1; !me->code && me->after < COLD_WRITES; n++) {
		bool late = __atomic_load_n(&control->poisoned,
					    __ATOMIC_ACQUIRE);

		__atomic_store_n(word, n, __ATOMIC_RELEASE);
		if (!magic_is_there(addr)) {
			me->fresh = true;
			break;
		}
		me->after += late;
		if (n == HOT_WRITES)
			set_and_wake(&me->state, 1);
	}
	set_and_wake(&me->state, 2);
	_exit(0);
}

static bool wait_for_state(FIXTURE_DATA(hugetlb_pmd_poison) * self, int nr,
			   uint32_t state)
{
	struct control *control = self->control;
	struct wait_limit limit = {};
	uint32_t now;

	while (within_limit(&limit, &self->pids[nr], 1, STEP_TIMEOUT_MS)) {
		now = __atomic_load_n(&control->sharers[nr].state,
				      __ATOMIC_ACQUIRE);
		if (now >= state)
			return true;
		wait_a_while(&control->sharers[nr].state, now, 100);
	}
	return false;
}

FIXTURE_SETUP(hugetlb_pmd_poison)
{
	pid_t parent, pid;
	int i, cpu, nodes[2];
	const char *why;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, to poison memory");
	if (!env_long("HUGETLB_PMD_MIGRATE_OFFLINE", 0))
		SKIP(return, "poisons memory: HUGETLB_PMD_MIGRATE_OFFLINE=1 allows it");
	why = unpoison_lacks();
	if (why)
		SKIP(return, "%s", why);
	self->nr_cpus = cpu_list(self->cpus, ARRAY_SIZE(self->cpus));
	if (self->nr_cpus < 3)
		SKIP(return, "needs 3 CPUs: for who poisons, who looks on, and who writes");
	why = nodes_lack(nodes, 1, self->cpus[0]) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 1, 2 * NR_PAGES) ?:
	      file_lacks(&self->fd, pud_size()) ?:
	      area_lacks(&self->area, variant->sharers);
	if (why)
		SKIP(return, "%s", why);
	self->control = share_memory(sizeof(*self->control));
	ASSERT_NE(NULL, self->control);
	pin_to_cpu(self->cpus[0]);

	parent = getpid();
	for (i = 1; i < variant->sharers; i++) {
		cpu = self->cpus[self->nr_cpus - 1 -
				 (i - 1) % (self->nr_cpus - 2)];
		pid = fork();
		ASSERT_GE(pid, 0);
		if (!pid)
			sharer_main(self->control, i, self->fd,
				    self->area + i * pud_size(), cpu, parent);
		self->pids[i] = pid;
	}

	/* The first that the reverse map walk comes to. */
	ASSERT_EQ(0, map_pud(self->fd, self->area));
	self->addr = self->area;
	((uint64_t *)self->addr)[MAGIC_WORD] = MAGIC;
	touch_pages(self->addr, NR_PAGES);
}

FIXTURE_TEARDOWN(hugetlb_pmd_poison)
{
	int i;

	for (i = 1; i < variant->sharers; i++) {
		if (self->pids[i] <= 0)
			continue;
		kill(self->pids[i], SIGKILL);
		waitpid(self->pids[i], NULL, 0);
	}
	if (self->area)
		munmap(self->area, variant->sharers * pud_size());
	if (self->fd >= 0)
		close(self->fd);
	guard_stop();
}

/* The walk holds i_mmap_rwsem, and who maps or unmaps a file takes it to write. */
static int wait_for_walk(int fd)
{
	char *addr = mmap(NULL, pmd_size(), PROT_READ,
			  MAP_SHARED | MAP_NORESERVE, fd, 0);

	return addr == MAP_FAILED || munmap(addr, pmd_size()) ? errno : 0;
}

static void *watch(void *arg)
{
	struct _test_data_hugetlb_pmd_poison *self = arg;
	uint32_t *poisoned = &self->control->poisoned;
	bool late = false;

	pin_to_cpu(self->cpus[1]);
	reads_page = true;
	self->watch_code = sigsetjmp(on_sigbus, 1);
	while (!self->watch_code && !self->watch_fresh && !late) {
		/* Once more when all is done: this CPU may have slept so far. */
		late = __atomic_load_n(poisoned, __ATOMIC_ACQUIRE);
		self->watch_fresh = !magic_is_there(self->addr);
	}
	self->watch_error = wait_for_walk(self->fd);
	__atomic_store_n(poisoned, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* Each of several steps may take as long as STEP_TIMEOUT_MS. */
TEST_F_TIMEOUT(hugetlb_pmd_poison, sigbus, 120)
{
	struct control *control = self->control;
	pthread_t watcher;
	char value[32];
	int64_t pfn;
	int i, ret, error;

	set_and_wake(&control->go, 1);
	for (i = 1; i < variant->sharers; i++) {
		struct sharer *s = &control->sharers[i];

		ASSERT_TRUE(wait_for_state(self, i, 1))
			TH_LOG("sharer %d does not write", i);
		ASSERT_EQ(0, s->error)
			TH_LOG("sharer %d cannot map the file", i);
		if (s->faults != 1)
			SKIP(return, "%s", not_shared(s->faults, NR_PAGES));
	}

	pfn = page_pfn(0, self->addr);
	ASSERT_GT(pfn, 0);
	snprintf(value, sizeof(value), "0x%llx", (unsigned long long)pfn);
	ASSERT_EQ(0, guard_undo(UNPOISON_PFN, value));

	catch_sigbus();
	ASSERT_EQ(0, pthread_create(&watcher, NULL, watch, self));
	usleep(10 * 1000);
	ret = madvise(self->addr, psize(), MADV_HWPOISON);
	error = errno;
	__atomic_store_n(&control->poisoned, 1, __ATOMIC_RELEASE);
	pthread_join(watcher, NULL);
	ASSERT_EQ(0, self->watch_error)
		TH_LOG("cannot map the file again: %s",
		       strerror(self->watch_error));
	/* Busy: all was done, but a fault on the page had a reference to it. */
	if (ret && error != EBUSY)
		SKIP(return, "MADV_HWPOISON does not work here: %s",
		     strerror(error));
	if (!self->watch_fresh)
		EXPECT_EQ(BUS_MCEERR_AR, self->watch_code)
			TH_LOG("the process that poisoned the page can still read it");

	for (i = 1; i < variant->sharers; i++) {
		struct sharer *s = &control->sharers[i];

		ASSERT_TRUE(wait_for_state(self, i, 2))
			TH_LOG("sharer %d is stuck", i);
		EXPECT_EQ(0, s->after)
			TH_LOG("sharer %d wrote to poisoned frame 0x%llx, and read it, %llu times",
			       i, (unsigned long long)pfn,
			       (unsigned long long)s->after);
		/*
		 * From 4.13 to 6.1 a poisoned page leaves the page cache, and
		 * who comes too late for the entry of it gets an empty one.
		 * That is bad enough, but not what this is about.
		 */
		if (s->fresh)
			ksft_print_msg("sharer %d got an empty page, not SIGBUS\n", i);
		else if (!s->after)
			EXPECT_EQ(BUS_MCEERR_AR, s->code);
	}
}

TEST_HARNESS_MAIN
