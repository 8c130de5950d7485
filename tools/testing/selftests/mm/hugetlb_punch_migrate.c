// SPDX-License-Identifier: GPL-2.0
/*
 * Does a hole that is punched into a hugetlb file leave a page mapped while pages
 * are migrated?
 *
 * fallocate(2) first unmaps all pages of a hole, and then takes them from the file,
 * one by one. A page that was mapped again meanwhile is unmapped once more. If it
 * is not locked when that is asked, a migration may have it, which unmaps it as
 * well, cannot move it, and puts the entries back:
 *
 *	hole				migration
 *					locks the page
 *					unmaps it
 *	finds it not mapped
 *	waits for the lock of the page
 *					puts the entries back
 *	takes the page from the file
 *
 * Then a process has a page that the file has no more. Who comes next gets a new
 * one, and neither sees what the other writes.
 *
 * Here some processes write to the pages of a file, another one moves these pages
 * to and fro between two nodes, and another one punches holes. After each hole all
 * stand still. The test maps the file anew, which gives it the pages that the file
 * has, and stores a number to each. All others read it by the mappings that they
 * had all the time. Who finds something else, and by /proc/PID/pagemap has another
 * page there, has one that the file has no more.
 *
 * The time for that is short. So others hold i_mmap_rwsem most of the time: they
 * change the protection of mappings of the same file, which no hole comes to. A
 * migration waits for it to put its entries back, and a hole to unmap a page.
 *
 *	page 0 ... 5			6			...
 *	written, moved, punched		of those who hold the lock
 *
 * A page fault can be such another one too, if no lock keeps it out. Up to 5.1 the
 * fault of a private mapping has another mutex than the hole: it locks the page, and
 * maps it after the hole has asked. So "private" has processes that only read, by
 * private mappings, and nobody moves a page or holds i_mmap_rwsem. When the hole
 * begins they have all pages mapped, and it unmaps each. Those that the file still
 * has they map again, which takes one more page fault for each. A page that they
 * come to later is one of their own, and is all zeroes.
 *
 *	no_move		nobody moves a page: right on any kernel
 *	private		two read by private mappings, one writes; nobody moves a
 *			page, and all are ordinary users
 *	move		two processes write
 *	share		they share their page table
 *	user		one writes, and all are ordinary users
 *
 * A hole counts if somebody was moving pages then and pages were written to
 * meanwhile; in "private", if somebody mapped a page again before it was gone.
 *
 * Environment:
 *	HUGETLB_PMD_CHURN=1		run it at all: a kernel that has the defect
 *					may die of it (with DEBUG_VM); not
 *					for machines that do work
 */
#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_memory.h"
#include "migrate_page.h"
#include "migrate_race.h"
#include "migrate_util.h"

#define NR_PAGES	6
#define MAX_USERS	3
#define NR_READERS	2	/* by private mappings */
#define NR_HOLDERS	2	/* of i_mmap_rwsem */
/* Of a node: all may be there, or on their way there, and as many stale. */
#define NEEDED		(2 * NR_PAGES + 2)
/* Those who read may have pages of their own, too. */
#define NEEDED_PRIVATE	(NEEDED + NR_READERS * NR_PAGES)
#define SECONDS		10
#define MAX_SECONDS	40	/* until there is enough, on a busy machine */
#define ENOUGH		30	/* fewer holes that count, or moves, are no evidence */
#define ENOUGH_LOST	3	/* the kernel has a lot to say of each */
#define STUCK_MS	15000
#define STAMP		0x70756e6368000000ull	/* "punch" */

/* What is done in a round, in this order. The word of the round is one of them. */
enum { RUN, STILL, LOOK, PHASES };

struct control {
	uint32_t phase;		/* grows by 1; a round is PHASES of them */
	unsigned long acks;	/* who has done what the phase wants */
	unsigned long holes;
	bool met;		/* the last hole counts */
	unsigned long writes[MAX_USERS];
	unsigned long begun;	/* calls of move_pages() */
	unsigned long ended;
	unsigned long moves;	/* pages that were moved */
	unsigned long held;	/* times that i_mmap_rwsem was taken */
	unsigned long again;	/* pages of a hole mapped by who reads */
	uint64_t saw[MAX_USERS][NR_PAGES];
};

FIXTURE(hugetlb_punch_migrate)
{
	struct control *control;
	struct crew crew;	/* those who write are the first, then who reads */
	char *area;
	int fd;
	int nodes[2];
	bool stuck;
};

FIXTURE_VARIANT(hugetlb_punch_migrate)
{
	int users;
	int readers;	/* of the users, the last ones */
	bool moves;
	bool share;
	bool user;
	bool control;
};

FIXTURE_VARIANT_ADD(hugetlb_punch_migrate, no_move) {
	.users = 2, .control = true };
/* Before those that move pages: a kernel that dies of these may pass this one. */
FIXTURE_VARIANT_ADD(hugetlb_punch_migrate, private) {
	.users = 1 + NR_READERS, .readers = NR_READERS, .user = true };
FIXTURE_VARIANT_ADD(hugetlb_punch_migrate, move) {
	.users = 2, .moves = true };
FIXTURE_VARIANT_ADD(hugetlb_punch_migrate, share) {
	.users = 2, .moves = true, .share = true };
FIXTURE_VARIANT_ADD(hugetlb_punch_migrate, user) {
	.users = 1, .moves = true, .user = true };

static struct control *shared;

static uint32_t phase_now(void)
{
	return __atomic_load_n(&shared->phase, __ATOMIC_ACQUIRE);
}

/*
 * Returns false at the end. It is asked after the phase is read: the last phase
 * begins when the end is known, and nobody may wait for the one after it.
 */
static bool goes_on(uint32_t *phase)
{
	*phase = phase_now();
	return !stopped();
}

static size_t size(void)
{
	return NR_PAGES * pmd_size();
}

/* The pages that holes are punched into; what covers no PUD shares no table. */
static char *map_pages(int fd, char *addr)
{
	return mmap(addr, size(), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_NORESERVE | (addr ? MAP_FIXED : 0), fd, 0);
}

static uint64_t *word_of(char *area, int page, int nr)
{
	return (uint64_t *)(area + page * pmd_size() + 64 * nr);
}

static __noreturn void write_main(int fd, char *area, int nr, bool share)
{
	uint32_t phase;
	int i;

	if (share) {
		int error = map_pud(fd, area);

		if (error)
			give_up(error);
	} else if (map_pages(fd, area) == MAP_FAILED) {
		give_up(errno);
	}
	while (goes_on(&phase)) {
		if (phase % PHASES == RUN) {
			/* Faults where a hole or a migration was. */
			for (i = 0; i < NR_PAGES && phase_now() == phase; i++) {
				__atomic_store_n(word_of(area, i, nr + 1), phase,
						 __ATOMIC_RELAXED);
				count_up(&shared->writes[nr], 1);
			}
			continue;
		}
		if (phase % PHASES == LOOK)
			for (i = 0; i < NR_PAGES; i++)
				shared->saw[nr][i] =
					__atomic_load_n(word_of(area, i, 0),
							__ATOMIC_ACQUIRE);
		count_up(&shared->acks, 1);
		wait_for_change(&shared->phase, phase);
	}
	_exit(0);
}

/*
 * Read by a private mapping, which maps the pages that the file has. Nothing is to be
 * unmapped to have faults: a hole takes all of them from here, its own ones too.
 */
static __noreturn void read_main(int fd, char *area, int nr)
{
	uint32_t phase;
	long faults = 0;
	int i;

	if (mmap(area, size(), PROT_READ, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
		 fd, 0) == MAP_FAILED)
		give_up(errno);
	touch_pages(area, NR_PAGES);
	while (goes_on(&phase)) {
		if (phase % PHASES == RUN) {
			faults += touch_pages(area, NR_PAGES);
			continue;
		}
		if (phase % PHASES == STILL) {
			/* All were mapped before, and all are from now on. */
			faults += touch_pages(area, NR_PAGES);
			if (faults > NR_PAGES)
				count_up(&shared->again, faults - NR_PAGES);
			faults = 0;
		}
		if (phase % PHASES == LOOK)
			for (i = 0; i < NR_PAGES; i++)
				/* One that was never stamped has been written to. */
				shared->saw[nr][i] =
					__atomic_load_n(word_of(area, i, 0),
							__ATOMIC_ACQUIRE) ?:
					__atomic_load_n(word_of(area, i, 1),
							__ATOMIC_ACQUIRE);
		count_up(&shared->acks, 1);
		wait_for_change(&shared->phase, phase);
	}
	_exit(0);
}

/* Nobody is there to be asked about any more when all are to end. */
static void ask_failed(int error)
{
	if (!stopped())
		give_up(error);
}

/* Each page that @pid has at @area to the node where it is not. */
static void move_all(pid_t pid, char *area, const int *nodes, int flags)
{
	int was[NR_PAGES], target[NR_PAGES], status[NR_PAGES];
	void *pages[NR_PAGES];
	int i;

	for (i = 0; i < NR_PAGES; i++) {
		pages[i] = area + i * pmd_size();
		was[i] = -ENOENT;
		status[i] = -ENOENT;
	}
	if (move_pages(pid, NR_PAGES, pages, NULL, was, 0)) {
		ask_failed(errno);
		return;
	}
	for (i = 0; i < NR_PAGES; i++)
		target[i] = nodes[was[i] == nodes[0]];
	count_up(&shared->begun, 1);
	/* Where there is no page any more, that is no error. */
	if (move_pages(pid, NR_PAGES, pages, target, status, flags) < 0 &&
	    (errno == EPERM || errno == EINVAL || errno == ESRCH))
		ask_failed(errno);
	count_up(&shared->ended, 1);
	for (i = 0; i < NR_PAGES; i++)
		if (was[i] >= 0 && status[i] == target[i])
			count_up(&shared->moves, 1);
}

static __noreturn void move_main(pid_t pid, char *area, const int *nodes,
				 int flags)
{
	uint32_t phase;

	/* Before that it may be a process that this one may not ask about. */
	while (!counted(&shared->writes[0]) && !stopped())
		sched_yield();
	while (goes_on(&phase)) {
		if (phase % PHASES == RUN) {
			move_all(pid, area, nodes, flags);
			continue;
		}
		if (phase % PHASES == STILL)
			count_up(&shared->acks, 1);
		wait_for_change(&shared->phase, phase);
	}
	_exit(0);
}

static bool punch(int fd)
{
	return !fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			  size());
}

static unsigned long all_writes(int users)
{
	unsigned long writes = 0;
	int i;

	for (i = 0; i < users; i++)
		writes += counted(&shared->writes[i]);
	return writes;
}

/* Wait until each of them has written to all pages since now. */
static void wait_for_writes(int users)
{
	unsigned long before[MAX_USERS];
	int i;

	for (i = 0; i < users; i++)
		before[i] = counted(&shared->writes[i]);
	for (i = 0; i < users; i++)
		while (counted(&shared->writes[i]) < before[i] + NR_PAGES &&
		       !stopped())
			sched_yield();
}

static __noreturn void punch_main(int fd, int users, bool moves)
{
	unsigned long begun, writes;
	uint32_t phase;
	bool moving;

	while (goes_on(&phase)) {
		if (phase % PHASES != RUN) {
			wait_for_change(&shared->phase, phase);
			continue;
		}
		wait_for_writes(users);
		while (moves && !stopped() &&
		       counted(&shared->begun) == counted(&shared->ended))
			sched_yield();
		/* Not always at the same time after the call began. */
		usleep(phase / PHASES % 8 * 250);

		writes = all_writes(users);
		begun = counted(&shared->begun);
		moving = counted(&shared->ended) < begun;
		if (!punch(fd))
			give_up(errno);
		if (counted(&shared->begun) != begun)
			moving = true;
		shared->met = all_writes(users) != writes && moving == moves;
		count_up(&shared->holes, 1);
		if (!stopped())
			wait_for_change(&shared->phase, phase);
	}
	_exit(0);
}

/* In the order in which the crew is forked: who writes is first. */
static __noreturn void member_main(FIXTURE_DATA(hugetlb_punch_migrate) * self,
				   const FIXTURE_VARIANT(hugetlb_punch_migrate) *
				   variant, int nr)
{
	int fd = self->fd;

	if (variant->user) {
		be_nobody();
		/* Else it is one whose pages no other of this user may move. */
		if (prctl(PR_SET_DUMPABLE, 1))
			give_up(errno);
	}
	if (nr < variant->users - variant->readers)
		write_main(fd, self->area, nr, variant->share);
	if (nr < variant->users)
		read_main(fd, self->area, nr);
	nr -= variant->users;
	if (!nr)
		punch_main(fd, variant->users - variant->readers, variant->moves);
	if (nr <= NR_HOLDERS)
		hold_main(fd, self->area + size(), pud_size() - size(), size(),
			  &shared->held);
	move_main(self->crew.pids[0], self->area, self->nodes,
		  variant->user ? MPOL_MF_MOVE : MPOL_MF_MOVE_ALL);
}

FIXTURE_SETUP(hugetlb_punch_migrate)
{
	const char *why;
	long faults;
	pid_t pid;
	int i, nr, wanted;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, to know where pages are");
	why = churn_lacks("may crash a kernel that has the defect");
	if (why)
		SKIP(return, "%s", why);
	if (guard_left())
		SKIP(return, "processes of the test before are stuck");
	wanted = variant->readers ? 1 : 2;
	why = nodes_lack(self->nodes, wanted, sched_getcpu()) ?:
	      guard_lacks() ?:
	      pool_lacks(self->nodes, wanted,
			 variant->readers ? NEEDED_PRIVATE : NEEDED) ?:
	      area_lacks(&self->area, 1) ?:
	      file_lacks(&self->fd, pud_size());
	if (why)
		SKIP(return, "%s", why);
	if (!punch(self->fd))
		SKIP(return, "no hole can be punched: needs 4.3");
	if (variant->share) {
		faults = faults_to_share(self->fd, self->area,
					 PROT_READ | PROT_WRITE, 0, NR_PAGES);
		if (faults != 1)
			SKIP(return, "%s", not_shared(faults, NR_PAGES));
	}

	shared = race_begin(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	self->control = shared;
	/* Those who read count their page faults. */
	if (variant->readers)
		numa_balancing(0);
	nr = variant->users + 1 + variant->moves;
	if (!variant->readers)
		nr += NR_HOLDERS;
	for (i = 0; i < nr; i++) {
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (!pid)
			member_main(self, variant, i);
	}
}

FIXTURE_TEARDOWN(hugetlb_punch_migrate)
{
	const char *why;

	if (self->area)
		munmap(self->area, pud_size());
	why = race_end(&self->crew, self->stuck, self->fd, STUCK_MS);
	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

/* Returns whether *@word comes so far before a process ends or too long. */
static bool wait_until(struct crew *crew, const unsigned long *word,
		       unsigned long want)
{
	uint64_t start = cycles_clock();

	while (counted(word) < want) {
		if (ms_since(start) > STUCK_MS || crew_ended(crew))
			return false;
		usleep(100);
	}
	return true;
}

static void next_phase(struct control *control)
{
	__atomic_store_n(&control->acks, 0, __ATOMIC_RELEASE);
	set_and_wake(&control->phase, phase_now() + 1);
}

/*
 * How many pages of those who write, the first @writers of @users, are other ones than
 * @view has; and of those who read, which are neither those nor their own.
 */
static int stale_pages(const struct control *control, const struct crew *crew,
		       char *area, char *view, int users, int writers,
		       uint64_t stamp, unsigned long *odd)
{
	int64_t theirs, ours;
	int i, nr, stale = 0;

	for (nr = 0; nr < users; nr++) {
		for (i = 0; i < NR_PAGES; i++) {
			if (control->saw[nr][i] == stamp + i ||
			    (nr >= writers && !control->saw[nr][i]))
				continue;
			theirs = page_pfn(crew->pids[nr], area + i * pmd_size());
			ours = page_pfn(0, view + i * pmd_size());
			if (theirs <= 0 || ours <= 0 || theirs == ours) {
				/* That is something else. */
				(*odd)++;
				continue;
			}
			if (!stale++)
				ksft_print_msg("page %d of process %d: frame %#llx, not %#llx\n",
					       i, nr, (unsigned long long)theirs,
					       (unsigned long long)ours);
		}
	}
	return stale;
}

TEST_F_TIMEOUT(hugetlb_punch_migrate, is_gone, 120)
{
	unsigned long met = 0, lost = 0, stale = 0, odd = 0, rounds = 0, again;
	struct control *control = self->control;
	uint64_t start = cycles_clock(), stamp;
	int i, pages, still;
	bool alive = true, died = false, counts;
	char *view;

	/* Those who hold the lock do not touch what is punched, and go on. */
	still = variant->users + variant->moves;
	while (lost < ENOUGH_LOST && ms_since(start) < MAX_SECONDS * 1000 &&
	       (ms_since(start) < SECONDS * 1000 || met < ENOUGH ||
		(variant->moves && counted(&control->moves) < ENOUGH))) {
		again = counted(&control->again);
		alive = wait_until(&self->crew, &control->holes, rounds + 1);
		if (!alive)
			break;
		rounds++;
		next_phase(control);
		alive = wait_until(&self->crew, &control->acks, still);
		if (!alive)
			break;

		view = map_pages(self->fd, NULL);
		ASSERT_NE(MAP_FAILED, view);
		stamp = STAMP + rounds * NR_PAGES;
		for (i = 0; i < NR_PAGES; i++)
			__atomic_store_n(word_of(view, i, 0), stamp + i,
					 __ATOMIC_RELEASE);
		next_phase(control);
		alive = wait_until(&self->crew, &control->acks, variant->users);
		if (!alive) {
			munmap(view, size());
			break;
		}
		pages = stale_pages(control, &self->crew, self->area, view,
				    variant->users,
				    variant->users - variant->readers, stamp,
				    &odd);
		munmap(view, size());
		stale += pages;
		lost += !!pages;
		counts = variant->readers ? counted(&control->again) != again :
					    control->met;
		met += counts || pages;
		next_phase(control);
	}
	/* Before they are told to end. */
	died = crew_ended(&self->crew);
	race_stop();
	next_phase(control);
	/* Who waits for one that has died with a lock held does not end. */
	self->stuck = !crew_wait(&self->crew, STUCK_MS);

	ksft_print_msg("hugetlb_punch_migrate: control=%s calls=%lu failed_calls=0",
		       variant->control ? "yes" : "no", rounds);
	printf(" migrations=%lu lost_migrations=%lu moves=%lu stale=%lu odd=%lu",
	       met, lost, control->moves, stale, odd);
	printf(" held=%lu again=%lu\n", control->held, control->again);
	ASSERT_EQ(0, lost)
		TH_LOG("after %lu of %lu holes processes had pages that the file had no more: %lu",
		       lost, rounds, stale);
	ASSERT_EQ(0, race_error())
		TH_LOG("a call failed: %s", strerror(race_error()));
	if (race_oom_killed(crew_killed(&self->crew)))
		SKIP(return, OOM_KILLED);
	ASSERT_FALSE(died || self->stuck || crew_failed(&self->crew))
		TH_LOG("a process died or is stuck, after %lu holes", rounds);
	EXPECT_EQ(0, odd)
		TH_LOG("%lu reads of the page that the file has found something else",
		       odd);
	/* Not after a failure: a skip would take its place. */
	if (odd)
		return;
	/* No hole and no answer for long: a busy machine, if all have ended now. */
	if (!alive || met < ENOUGH || (!variant->readers && !control->held) ||
	    (variant->moves && control->moves < ENOUGH))
		SKIP(return,
		     "inconclusive: %lu of %lu holes count, %lu pages were moved, %lu mapped again",
		     met, rounds, control->moves, control->again);
}

TEST_HARNESS_MAIN
