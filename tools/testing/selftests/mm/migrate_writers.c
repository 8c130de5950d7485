// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest.h"
#include "migrate_crew.h"
#include "migrate_journal.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "migrate_writers.h"
#include "vm_util.h"

#define HOT_PASSES	64	/* all writers at it */
#define LINGER_PASSES	256	/* after they were told to stop */
#define STEP_TIMEOUT_MS	20000	/* to obey; TCG is slow */
#define SHARE_TRIES	3
/*
 * Addresses of a writer's mappings. There are kernels that do not flush what
 * they unmap of a shared table (see hugetlb_pmd_flush.c), so at an address that
 * was used before, no fault proves nothing.
 */
#define MAX_ROOMS	1024
/* Address space may be short: an arm64 kernel has 512 PUDs, or less. */
#define MIN_ROOMS	16
/*
 * QEMU's TCG gives few entries to the TLB of a CPU that uses few. If an arm64 CPU
 * flushes a page, it does so on all CPUs, and QEMU empties each TLB that has 128
 * entries or less, whatever is in it. A writer then meets the migration entry,
 * and loses nothing.
 */
#define TLB_PIECES	256
#define TLB_PIECE	4096
#define TLB_TURNS	3

bool writers_reserve(struct writers *w, int nr)
{
	int puds;

	w->nr = nr;
	for (w->rooms = MAX_ROOMS; w->rooms >= MIN_ROOMS; w->rooms /= 2) {
		puds = 1 + nr * w->rooms + 2;
		w->area_size = puds * pud_size();
		w->area = reserve_puds(puds);
		if (w->area)
			return true;
	}
	errno = ENOMEM;
	return false;
}

char *writers_own_addr(const struct writers *w)
{
	return w->area;
}

char *writers_view_addr(const struct writers *w)
{
	return w->area + w->area_size - 2 * pud_size() + pmd_size();
}

size_t writers_offset(const struct writers *w, int page, int writer)
{
	size_t size = w->mem->page;

	if (size < MAX_WRITERS * JOURNAL_BYTES)
		return (page * w->nr + writer) * size;
	/*
	 * Not at the same offset of every page: TCG's TLB picks an entry by the
	 * lowest bits of the 4 KiB page number, and journals that share one drive
	 * each other out.
	 */
	return page * size + (page * MAX_WRITERS + writer) *
			     JOURNAL_BYTES % size;
}

uint64_t writers_stamp(const struct writer *writer, int ring, uint64_t n)
{
	if (!ring)
		ring = 1;
	n >>= ring * JOURNAL_SHIFT;
	return writer->stamps[ring * JOURNAL_SLOTS + n % JOURNAL_SLOTS];
}

static long faults_so_far(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_minflt;
}

/* Write to all pages in turn until the next command; returns that. */
static uint32_t write_pages(const struct writers *w, struct writer *me,
			    uint32_t cmd)
{
	uint64_t linger = LINGER_PASSES, n = me->last, hot;
	int i, nr = w->mem->nr_pages, number = me - w->each;
	uint64_t *journal[MAX_PAGES];
	long faults = faults_so_far();
	uint32_t next = cmd;

	me->first = n + 1;
	for (i = 0; i < nr; i++)
		journal[i] = (uint64_t *)(me->addr +
					  writers_offset(w, i, number));

	hot = n + me->hot_passes;
	while (next == cmd || linger--) {
		n++;
		for (i = 0; i < nr; i++)
			journal_write(journal[i], number, n);
		__atomic_store_n(&me->now, n, __ATOMIC_RELEASE);
		if (!(n % (1 << JOURNAL_SHIFT))) {
			journal_stamp(me->stamps, n, cycles());
			if (me->pause_us)
				usleep(me->pause_us);
		}
		if (n == hot)
			set_and_wake(&me->ack, cmd);
		next = __atomic_load_n(&me->cmd, __ATOMIC_ACQUIRE);
	}
	me->write_faults = faults_so_far() - faults;
	__atomic_store_n(&me->last, n, __ATOMIC_RELEASE);
	return next;
}

/*
 * A fault that has nothing to do with these pages may be counted too, so one that
 * took too many is asked again. It cannot take too few.
 */
static bool map_anew(const struct writers *w, struct writer *me)
{
	const struct memory *mem = w->mem;
	int tries;

	for (tries = 1;; tries++) {
		me->addr = me->room + me->maps++ % w->rooms * pud_size();
		me->error = mem->map(mem, me->addr);
		if (me->error)
			return false;
		me->faults = mem->page == pmd_size() ?
			     touch_pages(me->addr, mem->nr_pages) : 0;
		if (!mem->shares_table || me->faults == 1 ||
		    tries == SHARE_TRIES)
			return true;
		mem->unmap(mem, me->addr);
	}
}

/*
 * Have a TLB of 256 entries or more: touch more pages than it has room for, and
 * flush one of them. If that empties it, it has twice the entries from then on.
 */
static void widen_tlb(void)
{
	static char pieces[TLB_PIECES * TLB_PIECE];
	size_t size = getpagesize();
	char *page = pieces + size - (uintptr_t)pieces % size;
	int turn, i;

	for (turn = 0; turn < TLB_TURNS; turn++) {
		if (turn)
			madvise(page, size, MADV_DONTNEED);
		for (i = 0; i < TLB_PIECES; i++)
			__atomic_load_n(&pieces[i * TLB_PIECE],
					__ATOMIC_RELAXED);
	}
}

static __noreturn void writer_main(const struct writers *w, struct writer *me)
{
	bool mapped = !w->mem->map;
	uint32_t cmd = 0;

	__atomic_store_n(&me->tid, syscall(SYS_gettid), __ATOMIC_RELEASE);
	pin_to_cpu(me->cpu);
	for (;;) {
		cmd = wait_for_change(&me->cmd, cmd);
again:
		switch (cmd & 0xf) {
		case WRITE:
			mapped = mapped || map_anew(w, me);
			if (!mapped)
				break;
			widen_tlb();
			cmd = write_pages(w, me, cmd);
			goto again;
		case UNMAP:
			if (mapped && w->mem->map) {
				w->mem->unmap(w->mem, me->addr);
				mapped = false;
			}
			break;
		}
		set_and_wake(&me->ack, cmd);
	}
}

static int writers_prepare(struct writers *w, const int *cpus, int nr_cpus)
{
	int i;

	w->each = share_memory(MAX_WRITERS * sizeof(*w->each));
	if (!w->each)
		return errno;
	for (i = 0; i < w->nr; i++) {
		struct writer *one = &w->each[i];

		/* The first is for the test: it migrates and does not write. */
		one->cpu = cpus[nr_cpus - 1 - i % (nr_cpus - 1)];
		one->addr = w->mem->there;
		if (one->addr)
			continue;
		one->room = w->area + (1 + i * w->rooms) * pud_size();
		one->addr = one->room;
	}
	return 0;
}

int writers_fork(struct writers *w, const int *cpus, int nr_cpus)
{
	int i, error = writers_prepare(w, cpus, nr_cpus);
	struct crew crew = {};
	pid_t pid;

	for (i = 0; !error && i < w->nr; i++) {
		pid = crew_fork(&crew);
		if (pid < 0)
			return errno;
		if (!pid)
			writer_main(w, &w->each[i]);
		w->each[i].pid = pid;
	}
	return error;
}

struct thread {
	const struct writers *w;
	int nr;
};

static void *thread_main(void *arg)
{
	struct thread me = *(struct thread *)arg;

	free(arg);
	writer_main(me.w, &me.w->each[me.nr]);
	return NULL;
}

int writers_thread(struct writers *w, const int *cpus, int nr_cpus)
{
	int i, error = writers_prepare(w, cpus, nr_cpus);
	struct thread *thread;
	pthread_t id;

	for (i = 0; !error && i < w->nr; i++) {
		thread = malloc(sizeof(*thread));
		if (!thread)
			return errno;
		*thread = (struct thread){ w, i };
		error = pthread_create(&id, NULL, thread_main, thread);
	}
	return error;
}

void writers_kill(struct writers *w)
{
	int i;

	for (i = 0; w->each && i < w->nr; i++) {
		if (w->each[i].pid > 0) {
			kill(w->each[i].pid, SIGKILL);
			waitpid(w->each[i].pid, NULL, 0);
		}
	}
	if (w->area)
		munmap(w->area, w->area_size);
}

/* Whether it is, with a line that says how it ended. */
static bool is_gone(struct writer *one, int number)
{
	int status;

	if (one->pid <= 0 || waitpid(one->pid, &status, WNOHANG) != one->pid)
		return false;
	printf("# writer %d (pid %d) is gone: %s %d\n", number, one->pid,
	       WIFSIGNALED(status) ? "signal" : "exit",
	       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	one->pid = 0;
	return true;
}

static bool has_obeyed(struct writer *one, int number)
{
	struct wait_limit limit = {};
	uint32_t ack;
	pid_t tid;

	while ((ack = __atomic_load_n(&one->ack, __ATOMIC_ACQUIRE)) !=
	       one->cmd) {
		if (is_gone(one, number))
			return false;
		/* One that had no CPU yet has not told. */
		tid = __atomic_load_n(&one->tid, __ATOMIC_ACQUIRE) ?: one->pid;
		if (!within_limit(&limit, &tid, 1, STEP_TIMEOUT_MS)) {
			printf("# writer %d (pid %d) does not answer\n", number,
			       tid);
			tell_where(tid);
			return false;
		}
		wait_a_while(&one->ack, ack, 100);
	}
	return true;
}

bool writers_order(struct writers *w, enum order what, int rests)
{
	int i;

	for (i = 0; i < w->nr; i++) {
		struct writer *one = &w->each[i];

		if (what == WRITE) {
			one->pause_us = rests ? 50 << rests : 0;
			one->hot_passes = (HOT_PASSES + random() % 512) >> rests;
		}
		set_and_wake(&one->cmd, ((one->cmd >> 4) + 1) << 4 | what);
	}
	for (i = 0; i < w->nr; i++)
		if (!has_obeyed(&w->each[i], i + 1))
			return false;
	return true;
}

void writers_note(const struct writers *w, uint64_t *then)
{
	int i;

	for (i = 0; i < w->nr; i++)
		then[i] = __atomic_load_n(&w->each[i].now, __ATOMIC_ACQUIRE);
}

int writers_wrote(const struct writers *w, const uint64_t *then)
{
	int i, nr = 0;

	/* The pass that ends first may have begun, and be almost over, before. */
	for (i = 0; i < w->nr; i++)
		nr += __atomic_load_n(&w->each[i].now, __ATOMIC_ACQUIRE) >=
		      then[i] + 2;
	return nr;
}

struct check {
	const struct writers *w;
	struct lost_write loss;
	uint64_t *journal;
	void (*lost)(const struct lost_write *loss, void *arg);
	void *arg;
};

static void make_good(const struct journal_loss *loss, void *arg)
{
	struct check *check = arg;
	struct lost_write *lost = &check->loss;

	check->journal[loss->word] = loss->wrote;
	if (!check->lost)
		return;
	lost->offset = writers_offset(check->w, lost->page, lost->writer) +
		       loss->word * sizeof(uint64_t);
	lost->wrote = loss->wrote;
	lost->found = loss->found;
	lost->stamp = writers_stamp(&check->w->each[lost->writer],
				    loss->word / JOURNAL_SLOTS, loss->write);
	check->lost(lost, check->arg);
}

long writers_check(const struct writers *w, char *view, int mem,
		   void (*lost)(const struct lost_write *loss, void *arg),
		   void *arg, long *lost_in)
{
	struct check check = { .w = w, .lost = lost, .arg = arg };
	uint64_t copy[JOURNAL_WORDS];
	long here, all = 0;
	int page, i;
	char *addr;

	for (page = 0; page < w->mem->nr_pages; page++) {
		for (i = 0; i < w->nr; i++) {
			addr = view + writers_offset(w, page, i);
			check.journal = mem < 0 ? (uint64_t *)addr : copy;
			if (mem >= 0 && pread(mem, copy, sizeof(copy),
					      (off_t)addr) != sizeof(copy))
				return -errno;
			check.loss.page = page;
			check.loss.writer = i;
			here = journal_check(check.journal, i, w->each[i].last,
					     make_good, &check);
			if (mem >= 0 && here &&
			    pwrite(mem, copy, sizeof(copy), (off_t)addr) !=
			    sizeof(copy))
				return -errno;
			lost_in[page] += here;
			all += here;
		}
	}
	return all;
}
