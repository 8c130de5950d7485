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
 *	poison_both		the same, and B poisons pages, too, which A must not
 *				see
 *	poison_first		the same as poison_registered; A has touched nothing
 *				before, so that it joins the table to poison
 *	poison_later		C, which maps the file when A has exited; B has
 *				kept the table
 *	poison_at_once		the same, and C touches no other page before
 *	poison_left		C, which maps the file when A is no longer
 *				registered and B has exited; A has kept its
 *				table, and the poison
 *	poison_closed		the same; A has closed the userfaultfd instead
 *	poison_left_wp		the same as poison_left; A was registered for write
 *				protection as well
 *	poison_left_minor	the same; A was registered for minor faults
 *	poison_moved		the same; mremap(2) has moved the mapping, and it is
 *				not registered any more for that
 *	control_*		the same, with tables of their own
 *
 * What is poisoned is in two tables: the first and the last page of each, and
 * others. One call does the last page of one and the first page of the next.
 *
 * A itself must get SIGBUS. That a table is shared is to be seen from the number
 * of page faults, before anything is registered: to touch pages that are in the
 * table takes one.
 *
 * And it has to stay shared until something is poisoned, if A has registered for
 * missing pages alone: when B has touched a page, A must have it without a fault
 * of its own, which is in /proc/PID/pagemap of A. A kernel that lets nobody share
 * who is registered passes all else.
 *
 * A page that is mapped cannot be poisoned: neither one that is in the shared table,
 * and be it B's, nor one that A has touched since it has left that table. But what
 * was in that table is not mapped in A any more, and can be.
 *
 * A last test poisons while others join: two threads of A poison a page each,
 * again and again, and C maps the file, reads these pages and unmaps it.
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

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_page.h"
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
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM	0x1000
#endif

#define NR_PUDS		2	/* of the file, each with a table */
#define FIRST		1	/* page of each that A and B touch */
#define NR_PAGES	4	/* that they touch there */
#define PROBE		8	/* a page that B touches when A has registered */
#define NR_POISONED	6	/* at most, by one process */
#define NR_ALL		(NR_PUDS * NR_PAGES + 1 + 2 * NR_POISONED)
#define STUCK_MS	20000
#define JOIN_MS		3000	/* how long others join meanwhile, at least */
#define JOIN_MAX_MS	30000	/* and at most, until there was ENOUGH */
#define CLEAR_US	2000	/* how long there is no poison, at most */
#define ENOUGH		20	/* fewer joins or poisoned pages are no evidence */
#define MAGIC		0x636f70696564ull	/* what a missing page becomes */

enum who { A, B, C, NR_PROCS };

/* What a process is asked to do; each at most once. */
enum step { NOTHING, MAP, MAP_ONLY, REGISTER, TOUCH, REFUSED, POISON, LEFT,
	    UNREGISTER, CLOSE, MOVE, LOOK_AT_A, LOOK_AT_B };

struct proc {
	pid_t pid;
	uint32_t asked;
	uint32_t done;
	int error;		/* of a call that failed */
	long faults[NR_PUDS];	/* to touch the pages at first */
	uint32_t missing;	/* faults that it was told of */
	int refused;		/* error of a page that is mapped */
	int touched;		/* of one that is again, in a table of its own */
	int left;		/* of one that was, in the table that was left */
	/* LOOK_AT_A, LOOK_AT_B: at what that has poisoned */
	int nr_missing;		/* of which it was told */
	int nr_sigbus;
	int code;		/* si_code of the last one */
	int nr_wrong;		/* neither SIGBUS nor what is to be there */
};

FIXTURE(hugetlb_pmd_uffd)
{
	struct proc *procs;
	struct crew crew;	/* A, B and C */
	char *area;		/* where they map the file */
	int fd;
};

FIXTURE_VARIANT(hugetlb_pmd_uffd)
{
	enum who looks;
	bool registered;	/* B is as well */
	bool both;		/* B poisons as well */
	bool first;		/* A touches nothing before */
	bool at_once;		/* C touches nothing before */
	bool left;		/* A is not registered any more, B has exited */
	bool closed;		/* by close(2) */
	bool moved;		/* by mremap(2) */
	uint64_t mode;		/* of A, 0 for missing pages */
	uint64_t needs;		/* what the kernel has to have for that */
	bool own_tables;
	bool root;
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_uffd, poison_unregistered) {
	.looks = B };
FIXTURE_VARIANT_ADD(hugetlb_pmd_uffd, poison_registered) {
	.looks = B, .registered = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_uffd, poison_both) {
	.looks = B, .registered = true, .both = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_uffd, poison_later) {
	.looks = C };
FIXTURE_VARIANT_ADD(hugetlb_pmd_uffd, poison_first) {
	.looks = B, .registered = true, .first = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_uffd, poison_at_once) {
	.looks = C, .at_once = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_uffd, poison_left) {
	.looks = C, .left = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_uffd, poison_closed) {
	.looks = C, .left = true, .closed = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_uffd, poison_left_wp) {
	.looks = C, .left = true,
	.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
	.needs = UFFD_FEATURE_WP_HUGETLBFS_SHMEM };
FIXTURE_VARIANT_ADD(hugetlb_pmd_uffd, poison_left_minor) {
	.looks = C, .left = true, .mode = UFFDIO_REGISTER_MODE_MINOR,
	.needs = UFFD_FEATURE_MINOR_HUGETLBFS };
/*
 * In this mode mremap() looks for no table to share, and comes back on any kernel:
 * see hugetlb_pmd_mremap.c.
 */
FIXTURE_VARIANT_ADD(hugetlb_pmd_uffd, poison_moved) {
	.looks = C, .left = true, .moved = true,
	.mode = UFFDIO_REGISTER_MODE_MINOR,
	.needs = UFFD_FEATURE_MINOR_HUGETLBFS };
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
static bool told;		/* of missing pages, and fills them */
static char *filled;
static __thread sigjmp_buf on_sigbus;

static __noreturn void give_up(int error)
{
	crew_give_up(&me->error, error);
}

static int pages_per_pud(void)
{
	return pud_size() / pmd_size();
}

static char *page_at(int page)
{
	return addr + page * pmd_size();
}

/*
 * The pages that a process poisons, in order. Returns how many there are. B has
 * fewer than A, and others.
 */
static int poisoned_by(enum who who, int pages[NR_POISONED])
{
	int last = pages_per_pud() - 1, i = 0;

	if (who == B) {
		pages[i++] = PROBE + 1;
		pages[i++] = last + 1 + PROBE;
		return i;
	}
	pages[i++] = 0;
	pages[i++] = FIRST + NR_PAGES;
	pages[i++] = FIRST + NR_PAGES + 1;
	pages[i++] = last;
	pages[i++] = last + 1;
	pages[i++] = last + 1 + last;
	return i;
}

static void map_file(int fd, char *area, bool own_table)
{
	/* Entries at other places in the tables, so these cannot be shared. */
	addr = own_table ? area + pmd_size() : area;
	if (mmap(addr, NR_PUDS * pud_size(), PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0) == MAP_FAILED)
		give_up(errno);
}

static void touch_first(void)
{
	int i;

	/* Not to count the faults of the call itself. */
	touch_pages(addr, 0);
	for (i = 0; i < NR_PUDS; i++)
		me->faults[i] = touch_pages(page_at(i * pages_per_pud() + FIRST),
					    NR_PAGES);
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
		.start = (unsigned long)page_at(page),
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

static void register_it(uint64_t mode, bool fills)
{
	struct uffdio_register reg = {
		.range = range_of(0, NR_PUDS * pages_per_pud()),
		.mode = mode ?: UFFDIO_REGISTER_MODE_MISSING,
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
	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		give_up(errno);
	told = fills;
	if (fills && pthread_create(&thread, NULL, fill, NULL))
		give_up(EAGAIN);
}

/* Returns 0 or an error number. */
static int poison_pages(int page, int nr)
{
	struct uffdio_poison poison = { .range = range_of(page, nr) };

	return ioctl(uffd, UFFDIO_POISON, &poison) ? errno : 0;
}

static void poison(enum who who)
{
	int pages[NR_POISONED], nr = poisoned_by(who, pages), i, len, error;

	for (i = 0; i < nr; i += len) {
		for (len = 1; i + len < nr; len++)
			if (pages[i + len] != pages[i] + len)
				break;
		error = poison_pages(pages[i], len);
		if (error)
			give_up(error);
	}
	/* Once is enough. */
	error = poison_pages(pages[0], 1);
	if (error != EEXIST)
		give_up(error ?: EUCLEAN);
}

/* Poison pages that were mapped in the table that was left: one is again. */
static void poison_mapped(void)
{
	touch_pages(page_at(FIRST + 1), 1);
	me->touched = poison_pages(FIRST + 1, 1);
	me->left = poison_pages(PROBE, 1);
}

/* Beyond what a mapping with a table of its own takes. */
static void move(char *area)
{
	char *to = area + (NR_PUDS + 1) * pud_size();
	size_t size = NR_PUDS * pud_size();

	if (mremap(addr, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		give_up(errno);
	addr = to;
}

static void unregister(void)
{
	struct uffdio_range range = range_of(0, NR_PUDS * pages_per_pud());

	if (ioctl(uffd, UFFDIO_UNREGISTER, &range))
		give_up(errno);
}

static void sigbus(int sig, siginfo_t *info, void *ctx)
{
	siglongjmp(on_sigbus, info->si_code ? info->si_code : -1);
}

static void expect_sigbus(void)
{
	struct sigaction act = {
		.sa_sigaction = sigbus,
		.sa_flags = SA_SIGINFO,
	};

	sigaction(SIGBUS, &act, NULL);
}

/* siglongjmp(3) may forget what is in registers, so nothing here is kept over it. */
static int read_page(int page, uint64_t *value)
{
	int code = sigsetjmp(on_sigbus, 1);

	if (!code)
		*value = __atomic_load_n((uint64_t *)page_at(page),
					 __ATOMIC_RELAXED);
	return code;
}

static void look(enum who whose)
{
	int pages[NR_POISONED], nr = poisoned_by(whose, pages), i, code;
	uint32_t missing = __atomic_load_n(&me->missing, __ATOMIC_RELAXED);
	static uint64_t value;

	expect_sigbus();
	me->nr_sigbus = 0;
	for (i = 0; i < nr; i++) {
		code = read_page(pages[i], &value);
		if (code) {
			me->code = code;
			me->nr_sigbus++;
		} else if (value != (told ? MAGIC : 0)) {
			me->nr_wrong++;
		}
	}
	me->nr_missing = __atomic_load_n(&me->missing, __ATOMIC_RELAXED) -
			 missing;
}

static __noreturn void proc_main(struct proc *procs, enum who who, int fd,
				 char *area, bool own_table, bool root,
				 uint64_t mode, bool fills)
{
	int error = root ? 0 : crew_nobody();
	uint32_t step = NOTHING;

	me = &procs[who];
	if (error)
		give_up(error);
	for (;;) {
		step = wait_for_change(&me->asked, step);
		switch (step) {
		case MAP:
			map_file(fd, area, own_table);
			touch_first();
			break;
		case MAP_ONLY:
			map_file(fd, area, own_table);
			break;
		case REGISTER:
			register_it(mode, fills);
			break;
		case TOUCH:
			touch_pages(page_at(PROBE), 1);
			break;
		case REFUSED:
			me->refused = poison_pages(FIRST, 1);
			break;
		case POISON:
			poison(who);
			break;
		case LEFT:
			poison_mapped();
			break;
		case UNREGISTER:
			unregister();
			break;
		case CLOSE:
			close(uffd);
			break;
		case MOVE:
			move(area);
			break;
		case LOOK_AT_A:
			look(A);
			break;
		case LOOK_AT_B:
			look(B);
			break;
		}
		set_and_wake(&me->done, step);
	}
}

/* Have a process do a step. Returns false, and says why, if it does not. */
static bool ask(struct proc *procs, enum who who, enum step step)
{
	struct proc *proc = &procs[who];
	struct wait_limit limit = {};
	uint32_t done;

	set_and_wake(&proc->asked, step);
	while (!proc->error &&
	       within_limit(&limit, &proc->pid, 1, STUCK_MS)) {
		done = __atomic_load_n(&proc->done, __ATOMIC_ACQUIRE);
		if (done == step)
			return true;
		wait_a_while(&proc->done, done, 100);
	}
	ksft_print_msg("process %c, step %d: %s\n", 'A' + who, step,
		       strerror(proc->error ? proc->error : ETIMEDOUT));
	return false;
}

/* NULL, or a line that says what the machine or the kernel does not have. */
static const char *uffd_lacks(uint64_t needs, int *file, char **area)
{
	static char why[96];
	uint64_t features;
	int fd, nodes[2];

	needs |= UFFD_FEATURE_POISON | UFFD_FEATURE_MISSING_HUGETLBFS;
	if (geteuid())
		return "needs root, for the huge page pool";
	fd = open_uffd(&features);
	if (fd < 0) {
		snprintf(why, sizeof(why),
			 "no userfaultfd for user mode only (%s)",
			 strerror(-fd));
		return why;
	}
	close(fd);
	if (!(features & UFFD_FEATURE_POISON))
		return "no UFFDIO_POISON of huge pages (since 6.6)";
	if ((features & needs) != needs) {
		snprintf(why, sizeof(why), "no userfaultfd of feature %#llx",
			 (unsigned long long)(needs & ~features));
		return why;
	}
	return nodes_lack(nodes, 1, sched_getcpu()) ?:
	       guard_lacks() ?:
	       pool_lacks(nodes, 1, NR_ALL) ?:
	       file_lacks(file, NR_PUDS * pud_size()) ?:
	       area_lacks(area, 2 * NR_PUDS + 1);
}

FIXTURE_SETUP(hugetlb_pmd_uffd)
{
	const char *why;
	pid_t pid;
	int i;

	self->fd = -1;
	why = uffd_lacks(variant->needs, &self->fd, &self->area);
	if (why)
		SKIP(return, "%s", why);
	self->procs = share_memory(NR_PROCS * sizeof(*self->procs));
	ASSERT_NE(NULL, self->procs);
	for (i = 0; i < NR_PROCS; i++) {
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (pid) {
			self->procs[i].pid = pid;
			continue;
		}
		proc_main(self->procs, i, self->fd, self->area,
			  i != A && variant->own_tables, variant->root,
			  i == A ? variant->mode : 0,
			  /* Who reads from it keeps it open. */
			  i != A || !variant->closed);
	}
}

FIXTURE_TEARDOWN(hugetlb_pmd_uffd)
{
	const char *why = crew_end(&self->crew, self->fd, STUCK_MS);

	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

/* Each of several steps may take as long as STUCK_MS. */
TEST_F_TIMEOUT(hugetlb_pmd_uffd, poisons_its_own, 180)
{
	struct proc *procs = self->procs, *other = &procs[variant->looks];
	bool exits = variant->looks == C && !variant->left;	/* A does */
	int i, lost, nr, pages[NR_POISONED];
	bool stays;	/* the table that was shared is */

	/* B shares a table, with A or with C, and A can share that. */
	ASSERT_TRUE(ask(procs, variant->first ? C : A, MAP));
	ASSERT_TRUE(ask(procs, B, MAP));
	for (i = 0; i < NR_PUDS; i++) {
		if (!variant->own_tables && procs[B].faults[i] != 1)
			SKIP(return, "%s",
			     not_shared(procs[B].faults[i], NR_PAGES));
		if (variant->own_tables)
			ASSERT_EQ(NR_PAGES, procs[B].faults[i]);
	}

	if (variant->first)
		ASSERT_TRUE(ask(procs, A, MAP_ONLY));
	if (variant->registered)
		ASSERT_TRUE(ask(procs, B, REGISTER));
	ASSERT_TRUE(ask(procs, A, REGISTER));
	ASSERT_TRUE(ask(procs, B, TOUCH));
	/* To ask is to join, for who has touched nothing; of the first PUD. */
	if (!variant->mode)
		ASSERT_TRUE(ask(procs, A, REFUSED));
	/* A has not touched it. That is the kernel's word, not A's. */
	stays = page_pfn(self->crew.pids[A],
			 self->area + PROBE * pmd_size()) >= 0;
	ASSERT_TRUE(ask(procs, A, POISON));
	if (!variant->mode)
		ASSERT_TRUE(ask(procs, A, LEFT));
	if (variant->both)
		ASSERT_TRUE(ask(procs, B, POISON));
	if (variant->left) {
		ASSERT_TRUE(ask(procs, A, variant->moved ? MOVE :
				variant->closed ? CLOSE : UNREGISTER));
		ASSERT_TRUE(crew_kill_one(&self->crew, B, STUCK_MS));
	}
	if (exits)
		ASSERT_TRUE(crew_kill_one(&self->crew, A, STUCK_MS));
	if (!exits)
		ASSERT_TRUE(ask(procs, A, LOOK_AT_A));
	if (variant->looks == C)
		ASSERT_TRUE(ask(procs, C, variant->at_once ? MAP_ONLY : MAP));
	ASSERT_TRUE(ask(procs, variant->looks, LOOK_AT_A));

	nr = poisoned_by(A, pages);
	lost = other->nr_sigbus;
	if (!lost && variant->registered)
		lost = nr - other->nr_missing;
	ksft_print_msg("hugetlb_pmd_uffd: control=%s",
		       variant->own_tables ? "yes" : "no");
	printf(" calls=1 failed_calls=0 migrations=%d lost_migrations=%d", nr,
	       lost);
	printf(" faults=%ld sigbus=%d missing=%d stays_shared=%d left=%d\n",
	       other->faults[0], other->nr_sigbus, other->nr_missing, stays,
	       variant->mode ? -1 : procs[A].left);
	if (procs[A].done == LOOK_AT_A)
		EXPECT_EQ(nr, procs[A].nr_sigbus)
			TH_LOG("the process that poisoned the pages can read them");
	EXPECT_EQ(0, other->nr_sigbus)
		TH_LOG("process %c got SIGBUS, si_code %d, at %d of %d pages that A poisoned",
		       'A' + variant->looks, other->code, other->nr_sigbus, nr);
	if (variant->registered)
		EXPECT_EQ(nr, other->nr_missing)
			TH_LOG("B was told of %d of %d pages that are missing",
			       other->nr_missing, nr);
	EXPECT_EQ(0, other->nr_wrong);
	if (variant->own_tables)
		EXPECT_FALSE(stays)
			TH_LOG("a page that B touched is in the table of A");
	if (!variant->own_tables && !variant->mode)
		EXPECT_TRUE(stays)
			TH_LOG("who registers for missing pages shares no more");
	if (!variant->mode) {
		EXPECT_EQ(EEXIST, procs[A].refused)
			TH_LOG("a page that is mapped was poisoned, or: %s",
			       strerror(procs[A].refused));
		EXPECT_EQ(EEXIST, procs[A].touched)
			TH_LOG("a page that A has touched again was poisoned, or: %s",
			       strerror(procs[A].touched));
		EXPECT_EQ(0, procs[A].left)
			TH_LOG("A has not left the table: a page that B has there: %s",
			       strerror(procs[A].left));
	}
	if (!variant->both)
		return;

	/* And the other way round: B is A's A. */
	nr = poisoned_by(B, pages);
	ASSERT_TRUE(ask(procs, A, LOOK_AT_B));
	EXPECT_EQ(0, procs[A].nr_sigbus)
		TH_LOG("A got SIGBUS at %d of %d pages that B poisoned",
		       procs[A].nr_sigbus, nr);
	EXPECT_EQ(nr, procs[A].nr_missing);
	EXPECT_EQ(0, procs[A].nr_wrong);
}

/* While others join: pages that are poisoned, and as many that are not. */
#define NR_THREADS	2

struct race {
	uint32_t stop;
	int error;
	unsigned long poisoned;
	unsigned long refused;	/* C had mapped the page in the same table */
	unsigned long readable;	/* to A itself, although it had poisoned it */
	unsigned long maps;
	unsigned long joins;	/* of a table that had pages */
	unsigned long sigbus[NR_THREADS];	/* of C */
};

FIXTURE(hugetlb_pmd_uffd_join)
{
	struct crew crew;
	char *area;
	int fd;
};

static struct race *race;
static pthread_barrier_t all_clear;

static __noreturn void race_give_up(int error)
{
	crew_give_up(&race->error, error);
}

static bool stopped(void)
{
	return __atomic_load_n(&race->stop, __ATOMIC_ACQUIRE);
}

/* The first and the last page of a table. */
static int page_of(long thread)
{
	return thread ? pages_per_pud() - 1 : 0;
}

/*
 * Poison a page, if the table is to be had, and take the poison back. Nobody joins
 * a table with poison in it, and one of two threads has nearly always some there:
 * every other time they wait until neither has, and for as long as a table may take
 * to join, or less, so that it is poisoned at any step of that.
 */
static void *poison_again(void *arg)
{
	long thread = (long)arg;
	int page = page_of(thread), error;
	unsigned int seed = thread + 1, turn;
	static __thread uint64_t value;

	for (turn = 0; !stopped(); turn++) {
		if (madvise(page_at(page), pmd_size(), MADV_DONTNEED))
			race_give_up(errno);
		/* So that there is something in the table for who joins it. */
		touch_pages(page_at(FIRST + thread), 1);
		if (turn % 2) {
			pthread_barrier_wait(&all_clear);
			usleep(rand_r(&seed) % CLEAR_US);
		}
		error = poison_pages(page, 1);
		if (error == EEXIST) {
			count_up(&race->refused, 1);
			continue;
		}
		if (error)
			race_give_up(error);
		count_up(&race->poisoned, 1);
		if (!read_page(page, &value))
			count_up(&race->readable, 1);
	}
	return NULL;
}

static __noreturn void poison_main(void)
{
	pthread_t thread;
	long i;

	pthread_barrier_init(&all_clear, NULL, NR_THREADS);
	for (i = 0; i < NR_THREADS; i++)
		if (pthread_create(&thread, NULL, poison_again, (void *)i))
			race_give_up(EAGAIN);
	/* A thread may wait for one that has seen the end: not to be joined. */
	while (!stopped())
		usleep(10 * 1000);
	_exit(0);
}

/* Registered as A is: a mapping with other flags shares no table with it. */
static __noreturn void join_main(int fd, char *area)
{
	struct uffdio_register reg = {
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	static uint64_t value;
	int i;

	while (!stopped()) {
		map_file(fd, area, false);
		reg.range = range_of(0, NR_PUDS * pages_per_pud());
		if (ioctl(uffd, UFFDIO_REGISTER, &reg))
			race_give_up(errno);
		touch_pages(addr, 0);
		if (touch_pages(page_at(FIRST), NR_THREADS) == 1)
			count_up(&race->joins, 1);
		for (i = 0; i < NR_THREADS; i++)
			if (read_page(page_of(i), &value))
				count_up(&race->sigbus[i], 1);
		count_up(&race->maps, 1);
	}
	_exit(0);
}

/* All pages are in the file before anybody registers, so that none is missing. */
static __noreturn void race_main(int fd, char *area, bool poisons)
{
	static struct proc proc;
	int i, error = crew_nobody();
	uint64_t features;

	me = &proc;
	if (error)
		race_give_up(error);
	map_file(fd, area, false);
	for (i = 0; i < NR_THREADS; i++) {
		touch_pages(page_at(FIRST + i), 1);
		touch_pages(page_at(page_of(i)), 1);
	}
	expect_sigbus();
	if (poisons) {
		register_it(0, false);
		poison_main();
	}
	uffd = open_uffd(&features);
	if (uffd < 0)
		race_give_up(-uffd);
	join_main(fd, area);
}

static bool enough_joins(void)
{
	return __atomic_load_n(&race->joins, __ATOMIC_RELAXED) >= ENOUGH;
}

FIXTURE_SETUP(hugetlb_pmd_uffd_join)
{
	const char *why;
	long faults;
	pid_t pid;
	int i;

	self->fd = -1;
	why = uffd_lacks(0, &self->fd, &self->area);
	if (why)
		SKIP(return, "%s", why);
	faults = faults_to_share(self->fd, self->area, PROT_READ | PROT_WRITE,
				 FIRST, NR_THREADS);
	if (faults != 1)
		SKIP(return, "%s", not_shared(faults, NR_THREADS));
	race = share_memory(sizeof(*race));
	ASSERT_NE(NULL, race);
	for (i = 0; i < 2; i++) {
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (!pid)
			race_main(self->fd, self->area, !i);
	}
}

FIXTURE_TEARDOWN(hugetlb_pmd_uffd_join)
{
	const char *why = crew_end(&self->crew, self->fd, STUCK_MS);

	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

TEST_F_TIMEOUT(hugetlb_pmd_uffd_join, poisons_its_own, 120)
{
	uint64_t start = cycles_clock();
	bool ended = false, back;
	int lost, ms = 0;

	while (!ended && (ms < JOIN_MS ||
			  (ms < JOIN_MAX_MS && !enough_joins()))) {
		usleep(10 * 1000);
		ended = crew_ended(&self->crew);
		ms = ms_since(start);
	}
	set_and_wake(&race->stop, 1);
	back = crew_wait(&self->crew, STUCK_MS);

	lost = !!race->sigbus[0] + !!race->sigbus[1];
	ksft_print_msg("hugetlb_pmd_uffd: control=no");
	printf(" calls=%lu failed_calls=%lu migrations=%d lost_migrations=%d",
	       race->poisoned + race->refused, race->refused, NR_THREADS, lost);
	printf(" maps=%lu joins=%lu readable=%lu sigbus=%lu\n", race->maps,
	       race->joins, race->readable,
	       race->sigbus[0] + race->sigbus[1]);
	ASSERT_TRUE(back)
		TH_LOG("stuck: %lu pages poisoned, %lu maps", race->poisoned,
		       race->maps);
	ASSERT_EQ(0, race->error)
		TH_LOG("a call failed: %s", strerror(race->error));
	ASSERT_FALSE(ended)
		TH_LOG("a process died");
	ASSERT_EQ(0, crew_failed(&self->crew))
		TH_LOG("a process died");
	EXPECT_EQ(0, lost)
		TH_LOG("C got SIGBUS where A poisons: at %lu first and %lu last pages of %lu",
		       race->sigbus[0], race->sigbus[1], race->maps);
	EXPECT_EQ(0, race->readable)
		TH_LOG("A could read %lu of %lu pages that it had poisoned",
		       race->readable, race->poisoned);
	/* Not after a failure: a skip would take its place. */
	if (!lost && !race->readable &&
	    (race->joins < ENOUGH || race->poisoned < ENOUGH))
		SKIP(return, "inconclusive: %lu joins, %lu pages poisoned",
		     race->joins, race->poisoned);
}

TEST_HARNESS_MAIN
