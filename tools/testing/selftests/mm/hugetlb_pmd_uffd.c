// SPDX-License-Identifier: GPL-2.0
/*
 * Does UFFDIO_POISON poison pages of no process but the one that asked for it?
 *
 * It writes markers into a page table, and a process that touches such a page
 * gets SIGBUS. But processes that map the same part of a hugetlb file may share
 * the PMD page table (see hugetlb_pmd_migrate.c):
 *
 *	process A			process B
 *	maps the file, touches pages	the same: they share a table
 *	registers its mapping with
 *	userfaultfd, for missing pages
 *	poisons pages that nobody has
 *					touches them: SIGBUS
 *
 *	variant			who must not see A's poison
 *	poison_unregistered	B, which has registered nothing, as above
 *	poison_registered	B, which has registered its mapping as well, and is
 *				to be told that the pages are missing
 *	poison_later		C, which maps the file when A has exited; B has
 *				kept the table
 *	poison_left		C, which maps the file when A is no longer
 *				registered and B has exited; A has kept its
 *				table, and the poison
 *	control_*		the same, with tables of their own
 *
 * A itself must get SIGBUS. That a table is shared is to be seen from the number
 * of page faults, before anything is registered: to touch pages that are in the
 * table takes one.
 *
 * All of them are ordinary users, with a userfaultfd for faults in user mode,
 * but for poison_root. The test wants root for the pool of huge pages.
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <numa.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "migrate_util.h"
#include "vm_util.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY	1
#endif
#ifndef UFFDIO_POISON
#define UFFD_FEATURE_POISON	0x4000
#define _UFFDIO_POISON		0x08
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};

#define UFFDIO_POISON		_IOWR(UFFDIO, _UFFDIO_POISON, \
				      struct uffdio_poison)
#endif

#define NR_PAGES	4	/* that A and B touch */
#define NR_POISONED	4	/* the next ones */
#define NR_ALL		(NR_PAGES + NR_POISONED)
#define STUCK_MS	20000
#define MAGIC		0x636f70696564ull	/* what a missing page becomes */

enum who { A, B, C, NR_PROCS };

/* What a process is asked to do; each at most once. */
enum step { NOTHING, MAP, REGISTER, POISON, UNREGISTER, LOOK };

struct proc {
	uint32_t asked;
	uint32_t done;
	int error;		/* of a call that failed */
	long faults;		/* to touch the pages at first */
	uint32_t missing;	/* faults that it was told of */
	/* LOOK: */
	int nr_sigbus;
	int code;		/* si_code of the last one */
	int nr_wrong;		/* neither SIGBUS nor what is to be there */
};

FIXTURE(hugetlb_pmd_uffd)
{
	struct proc *procs;
	struct crew crew;	/* A, B and C */
	int fd;
};

FIXTURE_VARIANT(hugetlb_pmd_uffd)
{
	enum who looks;
	bool registered;	/* B is as well */
	bool left;		/* A is not registered any more, B has exited */
	bool own_tables;
	bool root;
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_uffd, poison_unregistered) {
	.looks = B };
FIXTURE_VARIANT_ADD(hugetlb_pmd_uffd, poison_registered) {
	.looks = B, .registered = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_uffd, poison_later) {
	.looks = C };
FIXTURE_VARIANT_ADD(hugetlb_pmd_uffd, poison_left) {
	.looks = C, .left = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_uffd, poison_root) {
	.looks = B, .root = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_uffd, control_unregistered) {
	.looks = B, .own_tables = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_uffd, control_registered) {
	.looks = B, .registered = true, .own_tables = true };

/* Of a process: itself, its mapping, its userfaultfd, what it fills pages with. */
static struct proc *me;
static char *addr;
static int uffd = -1;
static char *filled;
static sigjmp_buf on_sigbus;

static __noreturn void give_up(int error)
{
	crew_give_up(&me->error, error);
}

static void map_and_touch(int fd, char *area, bool own_table)
{
	int error;

	/* A mapping that covers no PUD is in no shared table. */
	addr = own_table ? area + pmd_size() : area;
	error = map_pud(fd, addr);
	if (error)
		give_up(error);
	/* Not to count the faults of the call itself. */
	touch_pages(addr, 0);
	me->faults = touch_pages(addr, NR_PAGES);
}

/* Returns a userfaultfd or -errno, and what this kernel can do with it. */
static int open_uffd(uint64_t *features)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0)
		return -errno;
	if (ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		return -EINVAL;
	}
	*features = api.features;
	return fd;
}

static struct uffdio_range range_of(int page, int nr)
{
	return (struct uffdio_range) {
		.start = (unsigned long)addr + page * pmd_size(),
		.len = nr * pmd_size(),
	};
}

/* Fill pages that are said to be missing. */
static void *fill(void *arg)
{
	struct uffdio_copy copy;
	struct uffd_msg msg;

	while (read(uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		if (msg.event != UFFD_EVENT_PAGEFAULT)
			continue;
		__atomic_fetch_add(&me->missing, 1, __ATOMIC_RELAXED);
		copy = (struct uffdio_copy) {
			.dst = msg.arg.pagefault.address & ~(pmd_size() - 1),
			.src = (unsigned long)filled,
			.len = pmd_size(),
		};
		if (ioctl(uffd, UFFDIO_COPY, &copy))
			give_up(errno);
	}
	give_up(errno);
}

static void register_it(void)
{
	struct uffdio_register reg = {
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	uint64_t features;
	pthread_t thread;

	filled = aligned_alloc(pmd_size(), pmd_size());
	if (!filled)
		give_up(ENOMEM);
	*(uint64_t *)filled = MAGIC;
	uffd = open_uffd(&features);
	if (uffd < 0)
		give_up(-uffd);
	reg.range.start = (unsigned long)addr;
	reg.range.len = pud_size();
	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		give_up(errno);
	if (pthread_create(&thread, NULL, fill, NULL))
		give_up(EAGAIN);
}

static void poison(void)
{
	struct uffdio_poison poison = {
		.range = range_of(NR_PAGES, NR_POISONED),
	};

	if (ioctl(uffd, UFFDIO_POISON, &poison))
		give_up(errno);
}

static void unregister(void)
{
	struct uffdio_range range = {
		.start = (unsigned long)addr,
		.len = pud_size(),
	};

	if (ioctl(uffd, UFFDIO_UNREGISTER, &range))
		give_up(errno);
}

static void sigbus(int sig, siginfo_t *info, void *ctx)
{
	siglongjmp(on_sigbus, info->si_code ? info->si_code : -1);
}

/* siglongjmp(3) may forget what is in registers, so nothing here is kept over it. */
static int read_page(int page, uint64_t *value)
{
	int code = sigsetjmp(on_sigbus, 1);

	if (!code)
		*value = __atomic_load_n((uint64_t *)(addr + page * pmd_size()),
					 __ATOMIC_RELAXED);
	return code;
}

static void look(void)
{
	struct sigaction act = {
		.sa_sigaction = sigbus,
		.sa_flags = SA_SIGINFO,
	};
	static uint64_t value;
	int i, code;

	sigaction(SIGBUS, &act, NULL);
	for (i = NR_PAGES; i < NR_ALL; i++) {
		code = read_page(i, &value);
		if (code) {
			me->code = code;
			me->nr_sigbus++;
		} else if (value != (uffd < 0 ? 0 : MAGIC)) {
			me->nr_wrong++;
		}
	}
}

static __noreturn void proc_main(struct proc *proc, int fd, char *area,
				 bool own_table, bool root)
{
	int error = root ? 0 : crew_nobody();
	uint32_t step = NOTHING;

	me = proc;
	if (error)
		give_up(error);
	for (;;) {
		step = wait_for_change(&me->asked, step);
		switch (step) {
		case MAP:
			map_and_touch(fd, area, own_table);
			break;
		case REGISTER:
			register_it();
			break;
		case POISON:
			poison();
			break;
		case UNREGISTER:
			unregister();
			break;
		case LOOK:
			look();
			break;
		}
		set_and_wake(&me->done, step);
	}
}

/* Have a process do a step. Returns false, and says why, if it does not. */
static bool ask(struct proc *procs, enum who who, enum step step)
{
	struct proc *proc = &procs[who];
	uint32_t done;
	int waited;

	set_and_wake(&proc->asked, step);
	for (waited = 0; waited < STUCK_MS && !proc->error; waited += 100) {
		done = __atomic_load_n(&proc->done, __ATOMIC_ACQUIRE);
		if (done == step)
			return true;
		wait_a_while(&proc->done, done, 100);
	}
	ksft_print_msg("process %c, step %d: %s\n", 'A' + who, step,
		       strerror(proc->error ? proc->error : ETIMEDOUT));
	return false;
}

FIXTURE_SETUP(hugetlb_pmd_uffd)
{
	const uint64_t needs = UFFD_FEATURE_POISON |
			       UFFD_FEATURE_MISSING_HUGETLBFS;
	int i, fd, nodes[2];
	uint64_t features;
	const char *why;
	pid_t pid;
	char *area;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, for the huge page pool");
	fd = open_uffd(&features);
	if (fd < 0)
		SKIP(return, "no userfaultfd for user mode only (%s)",
		     strerror(-fd));
	close(fd);
	if ((features & needs) != needs)
		SKIP(return, "no UFFDIO_POISON of huge pages (since 6.6)");
	why = nodes_lack(nodes, 1, sched_getcpu()) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 1, NR_ALL) ?:
	      file_lacks(&self->fd, pud_size()) ?:
	      area_lacks(&area, 2);
	if (why)
		SKIP(return, "%s", why);
	self->procs = share_memory(NR_PROCS * sizeof(*self->procs));
	ASSERT_NE(NULL, self->procs);
	for (i = 0; i < NR_PROCS; i++) {
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (pid)
			continue;
		proc_main(&self->procs[i], self->fd, area,
			  i != A && variant->own_tables, variant->root);
	}
}

FIXTURE_TEARDOWN(hugetlb_pmd_uffd)
{
	const char *why = crew_end(&self->crew, self->fd, STUCK_MS);

	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

/* Each of several steps may take as long as STUCK_MS. */
TEST_F_TIMEOUT(hugetlb_pmd_uffd, poisons_its_own, 120)
{
	struct proc *procs = self->procs, *other = &procs[variant->looks];
	bool exits = variant->looks == C && !variant->left;	/* A does */
	int lost;

	ASSERT_TRUE(ask(procs, A, MAP));
	ASSERT_TRUE(ask(procs, B, MAP));
	if (!variant->own_tables && procs[B].faults != 1)
		SKIP(return, "%s", not_shared(procs[B].faults, NR_PAGES));
	if (variant->own_tables)
		ASSERT_EQ(NR_PAGES, procs[B].faults);

	if (variant->registered)
		ASSERT_TRUE(ask(procs, B, REGISTER));
	ASSERT_TRUE(ask(procs, A, REGISTER));
	ASSERT_TRUE(ask(procs, A, POISON));
	if (variant->left) {
		ASSERT_TRUE(ask(procs, A, UNREGISTER));
		ASSERT_TRUE(crew_kill_one(&self->crew, B, STUCK_MS));
	}
	if (exits)
		ASSERT_TRUE(crew_kill_one(&self->crew, A, STUCK_MS));
	if (!exits)
		ASSERT_TRUE(ask(procs, A, LOOK));
	if (variant->looks == C)
		ASSERT_TRUE(ask(procs, C, MAP));
	ASSERT_TRUE(ask(procs, variant->looks, LOOK));

	lost = other->nr_sigbus;
	if (!lost && variant->registered)
		lost = NR_POISONED - (int)other->missing;
	ksft_print_msg("hugetlb_pmd_uffd: control=%s",
		       variant->own_tables ? "yes" : "no");
	printf(" calls=1 failed_calls=0 migrations=%d lost_migrations=%d",
	       NR_POISONED, lost);
	printf(" faults=%ld sigbus=%d missing=%u\n", other->faults,
	       other->nr_sigbus, other->missing);
	if (procs[A].done == LOOK)
		EXPECT_EQ(NR_POISONED, procs[A].nr_sigbus)
			TH_LOG("the process that poisoned the pages can read them");
	EXPECT_EQ(0, other->nr_sigbus)
		TH_LOG("process %c got SIGBUS, si_code %d, at %d of %d pages that A poisoned",
		       'A' + variant->looks, other->code, other->nr_sigbus,
		       NR_POISONED);
	if (variant->registered)
		EXPECT_EQ(NR_POISONED, other->missing)
			TH_LOG("B was told of %u of %d pages that are missing",
			       other->missing, NR_POISONED);
	EXPECT_EQ(0, other->nr_wrong);
}

TEST_HARNESS_MAIN
