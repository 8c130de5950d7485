// SPDX-License-Identifier: GPL-2.0
/*
 * Does a hugetlb mapping allow no more than it was given, while others change
 * the protection of theirs?
 *
 * Mappings share a PMD page table if their flags are the same (see
 * hugetlb_pmd_migrate.c). Then the entries suit all of them. But mprotect(2)
 * changes the flags of a mapping and its entries, and not at once. If another
 * process can come in between, it finds the flags that its own mapping has,
 * and a table whose entries still allow what the flags were before:
 *
 *	process A			process B
 *	maps the file for writing
 *	writes: a table with entries
 *	that allow it
 *	mprotect(PROT_READ)
 *	  the flags say: reading
 *					maps the file for reading
 *					reads: A's flags are the same, so it
 *					shares A's table
 *	  the table is shared, so A
 *	  gives it up: the entries
 *	  stay as they are
 *					writes to its read-only mapping
 *
 * Everyone who maps the file for reading later shares that table with B.
 *
 * Here a process maps the file in a loop, with more than PROT_READ, touches its
 * pages, takes the rest away and unmaps. Others map the file for reading, read
 * the pages, try what they may not do, and unmap. Each try has to end in SIGSEGV.
 * One more process maps, reads and unmaps, so that a table lives longer than who
 * made it.
 *
 * A protection key takes away too, by pkey_mprotect(2): its number is in the flags
 * of the mapping and in the entries. The others then have mappings with a key that
 * does not let them write, and must not find entries without it.
 *
 * In two variants the process that changes has more than that one mapping of a
 * PUD. In store_part it maps two PUDs, and changes the first. In store_two it has
 * a second mapping of the same PUD, which shares the table with the first. There
 * it looks at both after the change: the first must deny what was taken away, and
 * the second allow it.
 *
 * Before that, the number of page faults that it takes to touch pages which
 * another process has mapped in the same way shows whether tables are shared.
 * If they are not, nothing is tested, and the test is skipped. The same number
 * tells of each later mapping whether it has joined a table: tries count only
 * where one fault was enough for all pages, and of store_two only changes where
 * it was so for the second mapping.
 *
 * Environment:
 *	HUGETLB_PMD_PROTECT_SECONDS=n	how long a variant runs
 */
#include "kselftest_harness.h"

#include <numa.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <unistd.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_page.h"
#include "migrate_race.h"
#include "migrate_util.h"
#include "vm_util.h"

#define NR_PAGES	4
#define NR_TRYING	2
#define NR_PROCS	(NR_TRYING + 2)	/* who changes, and who only reads */
#define SECONDS		3
#define MAX_SECONDS	100
#define MORE		2	/* times that, on a slow machine */
#define WANT		20	/* that succeeded are enough */
#define ENOUGH		200	/* fewer changes or tries are no evidence */
#define STUCK_MS	20000
#define PAGE_WORD	64	/* byte of a page that is written to */

struct control {
	unsigned long changes;
	unsigned long given_up;	/* of these, with a table that others had */
	unsigned long tries;	/* in mappings that have joined a table */
	unsigned long alone;	/* in others */
	unsigned long allowed;	/* tries that did not end in SIGSEGV */
	unsigned long own;	/* of these, of the one that changes */
	unsigned long denied;	/* stores to what was not changed that did */
	unsigned long reads;
};

FIXTURE(hugetlb_pmd_protect)
{
	struct control *control;
	struct crew crew;
	int fd;
};

FIXTURE_VARIANT(hugetlb_pmd_protect)
{
	int more;	/* than PROT_READ, and what is taken away and tried */
	bool user;	/* no privilege */
	bool key;	/* a protection key takes it away */
	bool part;	/* of two PUDs that are mapped, the first changes */
	bool two;	/* mappings of the PUD, of which one changes */
	bool control;	/* nothing is taken away: the mapping never had it */
};

FIXTURE_VARIANT_ADD(hugetlb_pmd_protect, store) {
	.more = PROT_WRITE };
FIXTURE_VARIANT_ADD(hugetlb_pmd_protect, store_user) {
	.more = PROT_WRITE, .user = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_protect, execute) {
	.more = PROT_EXEC };
FIXTURE_VARIANT_ADD(hugetlb_pmd_protect, store_key) {
	.more = PROT_WRITE, .key = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_protect, store_part) {
	.more = PROT_WRITE, .part = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_protect, store_two) {
	.more = PROT_WRITE, .two = true };
FIXTURE_VARIANT_ADD(hugetlb_pmd_protect, control_store) {
	.more = PROT_WRITE, .control = true };

/* A function that only returns. */
#if defined(__x86_64__)
static const unsigned char returns[] = { 0xc3 };
#elif defined(__aarch64__)
static const unsigned char returns[] = { 0xc0, 0x03, 0x5f, 0xd6 };
#elif defined(__riscv)
static const unsigned char returns[] = { 0x67, 0x80, 0x00, 0x00 };
#else
static const unsigned char returns[] = { };
#endif

static struct control *shared;
static char *where;		/* PUDs of address space */
static sigjmp_buf denied;
static int key = -1;		/* that denies writing, or none */

static void map_at(char *addr, int puds, int fd, int prot)
{
	if (mmap(addr, puds * pud_size(), prot,
		 MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0) != addr)
		give_up(errno);
}

static void map(int fd, int prot)
{
	map_at(where, 1, fd, prot);
}

/* As it is mapped by those who may only read it. */
static void map_to_read(int fd)
{
	map(fd, key < 0 ? PROT_READ : PROT_READ | PROT_WRITE);
	if (key >= 0 &&
	    pkey_mprotect(where, pud_size(), PROT_READ | PROT_WRITE, key))
		give_up(errno);
}

/* From more to what the others have. */
static int take_away(void)
{
	if (key >= 0)
		return pkey_mprotect(where, pud_size(), PROT_READ | PROT_WRITE,
				     key);
	return mprotect(where, pud_size(), PROT_READ);
}

/* Returns whether that took one page fault: there was a table to join. */
static bool read_pages(void)
{
	return touch_pages(where, NR_PAGES) == 1;
}

static void on_segv(int sig)
{
	siglongjmp(denied, 1);
}

/* siglongjmp(3) may forget what is in registers, so nothing here is kept over it. */
static bool may(int more, char *page)
{
	if (sigsetjmp(denied, 1)) {
		/* A signal begins without the rights of any key. */
		if (key >= 0)
			pkey_set(key, PKEY_DISABLE_WRITE);
		return false;
	}
	if (more == PROT_EXEC)
		((void (*)(void))page)();
	else
		__atomic_store_n(page + PAGE_WORD, 2, __ATOMIC_RELAXED);
	return true;
}

/*
 * After the first of two mappings has changed: that one denies, and the second
 * still allows.
 */
static void look_at_both(char *second)
{
	int i;

	for (i = 0; i < NR_PAGES; i++) {
		if (may(PROT_WRITE, where + i * pmd_size())) {
			count_up(&shared->allowed, 1);
			count_up(&shared->own, 1);
		}
		if (!may(PROT_WRITE, second + i * pmd_size()))
			count_up(&shared->denied, 1);
	}
}

static __noreturn void change_main(int fd,
				   const FIXTURE_VARIANT(hugetlb_pmd_protect) *
				   variant)
{
	struct sigaction act = { .sa_handler = on_segv };
	int i, puds = variant->part ? 2 : 1, more = variant->more;
	char *second = where + 2 * pud_size();
	bool counts;

	if (variant->two)
		sigaction(SIGSEGV, &act, NULL);
	while (!stopped()) {
		counts = true;
		if (variant->control)
			map_to_read(fd);
		else
			map_at(where, puds, fd, PROT_READ | more);
		read_pages();
		for (i = 0; i < NR_PAGES && more == PROT_WRITE &&
		     !variant->control; i++)
			__atomic_store_n(where + i * pmd_size() + PAGE_WORD, 1,
					 __ATOMIC_RELAXED);
		if (variant->two) {
			map_at(second, 1, fd, PROT_READ | more);
			counts = touch_pages(second, NR_PAGES) == 1;
		}
		if (take_away())
			give_up(errno);
		/* It has lost the table if others have it. */
		if (touch_pages(where, NR_PAGES))
			count_up(&shared->given_up, 1);
		if (variant->two) {
			look_at_both(second);
			unmap_pud(second);
		}
		unmap_pud(where);
		if (variant->part)
			unmap_pud(where + pud_size());
		if (counts)
			count_up(&shared->changes, 1);
	}
	_exit(0);
}

static __noreturn void try_main(int fd, int more)
{
	struct sigaction act = { .sa_handler = on_segv };
	unsigned long *tries;
	int i;

	sigaction(SIGSEGV, &act, NULL);
	while (!stopped()) {
		map_to_read(fd);
		tries = read_pages() ? &shared->tries : &shared->alone;
		for (i = 0; i < NR_PAGES; i++) {
			if (may(more, where + i * pmd_size()))
				count_up(&shared->allowed, 1);
			count_up(tries, 1);
		}
		unmap_pud(where);
	}
	_exit(0);
}

static __noreturn void read_main(int fd)
{
	while (!stopped()) {
		map_to_read(fd);
		read_pages();
		sched_yield();
		unmap_pud(where);
		count_up(&shared->reads, 1);
	}
	_exit(0);
}

/* So that execution has something to find in each page. */
static bool fill(int fd)
{
	char *addr = mmap(NULL, NR_PAGES * pmd_size(), PROT_READ | PROT_WRITE,
			  MAP_SHARED, fd, 0);
	int i;

	if (addr == MAP_FAILED)
		return false;
	for (i = 0; i < NR_PAGES; i++)
		memcpy(addr + i * pmd_size(), returns, sizeof(returns));
	return !munmap(addr, NR_PAGES * pmd_size());
}

static __noreturn void child(FIXTURE_DATA(hugetlb_pmd_protect) * self,
			     const FIXTURE_VARIANT(hugetlb_pmd_protect) *
			     variant, int nr)
{
	if (variant->user)
		be_nobody();
	/* Up to 5.0 fork(2) forgets which keys are taken. */
	if (key >= 0 && pkey_alloc(0, PKEY_DISABLE_WRITE) != key)
		give_up(ENOSPC);
	if (!nr)
		change_main(self->fd, variant);
	if (nr <= NR_TRYING)
		try_main(self->fd, variant->more);
	read_main(self->fd);
}

FIXTURE_SETUP(hugetlb_pmd_protect)
{
	int more = variant->control ? 0 : variant->more;
	const char *why;
	int i, nodes[2];
	long faults;
	pid_t pid;

	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, for the huge page pool");
	if (variant->more == PROT_EXEC && !sizeof(returns))
		SKIP(return, "does not know the instructions of this machine");
	key = variant->key ? pkey_alloc(0, PKEY_DISABLE_WRITE) : -1;
	if (variant->key && (key < 0 || pkey_set(key, PKEY_DISABLE_WRITE)))
		SKIP(return, "needs memory protection keys: %s",
		     strerror(errno));
	/* Each child takes it for itself, and gets the same. */
	if (variant->key)
		pkey_free(key);
	/* Tables are shared where a mapping covers a PUD, whatever is in it. */
	why = nodes_lack(nodes, 1, sched_getcpu()) ?:
	      guard_lacks() ?:
	      pool_lacks(nodes, 1, NR_PAGES) ?:
	      file_lacks(&self->fd, NR_PAGES * pmd_size());
	if (why)
		SKIP(return, "%s", why);
	ASSERT_TRUE(fill(self->fd));
	why = area_lacks(&where, 3);
	if (why)
		SKIP(return, "%s", why);

	/* As those who try map it, and as the one that changes does. */
	faults = faults_to_share(self->fd, where, PROT_READ, 0, NR_PAGES);
	if (faults == 1)
		faults = faults_to_share(self->fd, where, PROT_READ | more, 0,
					 NR_PAGES);
	ASSERT_LT(0, faults)
		TH_LOG("cannot map the file: %s", strerror(-faults));
	if (faults != 1)
		SKIP(return, "%s", not_shared(faults, NR_PAGES));

	shared = race_begin(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	self->control = shared;
	for (i = 0; i < NR_PROCS; i++) {
		pid = crew_fork(&self->crew);
		ASSERT_GE(pid, 0);
		if (!pid)
			child(self, variant, i);
	}
}

FIXTURE_TEARDOWN(hugetlb_pmd_protect)
{
	const char *why = crew_end(&self->crew, self->fd, STUCK_MS);

	EXPECT_EQ(NULL, why)
		TH_LOG("%s", why);
}

static bool few(struct control *control)
{
	return __atomic_load_n(&control->tries, __ATOMIC_ACQUIRE) < ENOUGH ||
	       __atomic_load_n(&control->changes, __ATOMIC_ACQUIRE) < ENOUGH;
}

TEST_F_TIMEOUT(hugetlb_pmd_protect, denies, 500)
{
	long seconds = env_count("HUGETLB_PMD_PROTECT_SECONDS", SECONDS);
	struct control *control = self->control;
	unsigned long start = cycles_clock(), tries, allowed;
	const char *why;
	int died = 0;
	bool gone;

	seconds = MIN(MAX(seconds, 1), MAX_SECONDS);
	/* Longer where these are too few to say anything. */
	while (!died &&
	       (ms_since(start) < seconds * 1000 ||
		(ms_since(start) < MORE * seconds * 1000 && few(control))) &&
	       __atomic_load_n(&control->allowed, __ATOMIC_ACQUIRE) < WANT) {
		usleep(10 * 1000);
		died = crew_ended(&self->crew);
	}
	race_stop();
	gone = crew_wait(&self->crew, STUCK_MS);

	tries = control->tries;
	allowed = control->allowed;
	ksft_print_msg("hugetlb_pmd_protect: control=%s",
		       variant->control ? "yes" : "no");
	printf(" calls=%lu failed_calls=%d migrations=%lu lost_migrations=%lu",
	       control->changes, !!race_error(), tries, allowed);
	printf(" reads=%lu alone=%lu given_up=%lu\n", control->reads,
	       control->alone, control->given_up);
	ASSERT_TRUE(gone)
		TH_LOG("a process does not end");
	why = race_failed(&self->crew, died);
	ASSERT_EQ(NULL, why)
		TH_LOG("%s", why);
	EXPECT_EQ(0, allowed)
		TH_LOG("%lu of %lu tries to %s a mapping that denies it succeeded",
		       allowed, tries, variant->more == PROT_EXEC ?
		       "execute from" : "write to");
	EXPECT_EQ(0, control->own)
		TH_LOG("%lu of these in the mapping that had changed",
		       control->own);
	EXPECT_EQ(0, control->denied)
		TH_LOG("%lu stores to a mapping that had not changed failed",
		       control->denied);
	if (!allowed && !control->denied && few(control))
		SKIP(return,
		     "inconclusive: %lu changes of protection, %lu tries with a table of others, %lu without",
		     control->changes, tries, control->alone);
}

TEST_HARNESS_MAIN
