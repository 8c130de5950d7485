// SPDX-License-Identifier: GPL-2.0
/*
 * Is anything lost that the kernel itself writes to a page that is migrated?
 *
 * A store of a program is stopped by taking the page out of its page tables. The
 * kernel writes to pages that it has looked up before, through a mapping of its
 * own that nobody takes away: for process_vm_writev(2), O_DIRECT, io_uring, and
 * whoever else calls get_user_pages(). Nothing but a reference keeps such a page
 * from being moved:
 *
 *	migration			kernel
 *					looks the page up: one reference more
 *	takes the page out of all
 *	page tables
 *	counts references: one is
 *	not accounted for, gives up
 *	puts the mappings back
 *					writes to the page, drops the reference
 *
 * If migration goes on here, the write is to the old page, and lost.
 *
 * References that are held for a moment are tested by a race. A thread writes
 * word n to slot n % slots of each page, for n = 1, 2, 3 ..., while another
 * moves the pages to and fro. One round is
 *
 *	write	until all pages have been written to
 *	move	all pages to the other node, with one call
 *	stop	the thread
 *	compare	each slot with the last word that was written there
 *
 * References that are kept need no race:
 *
 *	hold	the pages
 *	move	fails: they have to stay where they are
 *	write	and let go
 *	compare	what the page, or the pipe, has
 *	move	works now
 *
 * Ways to write:
 *
 *	process_vm	process_vm_writev(2); what it copies is faulted in while it
 *			holds the pages that it copies to
 *	direct		O_DIRECT read from a loop device: the one who writes is a
 *			thread of the kernel's
 *	io_uring	fixed buffers, which are kept
 *	vmsplice	pages in a pipe, which are kept. The program writes to them,
 *			and the kernel reads
 *
 * Memory is private, in base pages or transparent huge pages, a memfd's, or a
 * hugetlb file's. That of a file is mapped by another process too, and it is that
 * one's memory that is written to where the way to write allows it. Of a hugetlb
 * file both share the page table, if the kernel has them do so.
 *
 * Environment:
 *	MIGRATE_PINNED_WRITE_CALLS=n	rounds a test
 */
#include "kselftest_harness.h"

#include <fcntl.h>
#include <linux/posix_types.h>
#include <linux/stddef.h>
/* It relies on those. */
#include <linux/io_uring.h>
#include <numaif.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_journal.h"
#include "migrate_loop.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define CALLS		20
#define MIN_MOVES	3	/* fewer are no evidence */
#define NR_BASE		8
#define NR_HUGE		4
#define MAX_PAGES	NR_BASE
#define SPARE		2	/* huge pages beside those, on each node */
#define SLOTS_BYTES	4096	/* at the beginning of each page */
#define BLOCK		512	/* the least that O_DIRECT reads */
#define PIECES		16	/* of what one process_vm_writev() copies */
#define TRIES		3
#define STEP_TIMEOUT_MS	20000
#define QUICK_MS	5000	/* calls that are quick go on for so long */
#define TEST_MS		20000	/* no call begins later */
#define EXAMPLES	3

enum kind { ANON, ANON_THP, SHMEM, HUGETLB };

static const char * const kind_name[] = {
	"anon", "anon_thp", "shmem", "hugetlb",
};

struct state;

struct way {
	const char *name;
	size_t slot;		/* bytes */
	/* All return 0 or an error number. No @hold: it keeps nothing. */
	int (*open)(struct state *st);
	int (*hold)(struct state *st);
	int (*write)(struct state *st, int page, size_t offset, uint64_t word);
	int (*release)(struct state *st, long *lost);
	const char *needs;	/* where it cannot be opened */
};

struct ring {
	int fd;
	unsigned int *sq_tail, *sq_array, *cq_head;
	unsigned int sq_mask, cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

/* Shared with the thread and the other process. */
struct control {
	uint32_t phase;		/* odd: write */
	uint32_t ack;		/* the last phase that was seen */
	uint32_t ready;		/* the other process has mapped all */
	uint64_t last;		/* the number of the last word in all pages */
	/* Words so far that it began to write to a page, and that are there. */
	unsigned long begun[MAX_PAGES], done[MAX_PAGES];
	pid_t tid;
	int error;
};

FIXTURE(migrate_pinned_write)
{
	struct state *st;
};

FIXTURE_VARIANT(migrate_pinned_write)
{
	enum kind kind;
};

FIXTURE_VARIANT_ADD(migrate_pinned_write, anon) { .kind = ANON };
FIXTURE_VARIANT_ADD(migrate_pinned_write, anon_thp) { .kind = ANON_THP };
FIXTURE_VARIANT_ADD(migrate_pinned_write, shmem) { .kind = SHMEM };
FIXTURE_VARIANT_ADD(migrate_pinned_write, hugetlb) { .kind = HUGETLB };

struct state {
	enum kind kind;
	const struct way *way;
	size_t page;		/* bytes */
	int nr_pages;
	size_t size;
	int fd;			/* of the file */
	char *addr;		/* the mapping */
	int self;		/* /proc/self/mem, to compare */
	pid_t target;		/* whose memory is written to from outside */
	int nodes[2];
	int writer_cpu;
	struct control *control;
	struct crew crew;
	int examples;
	/* Of the way to write. */
	int out;		/* what is read from */
	int pipe[2];
	char *source;		/* memory that is copied from */
	char *again;		/* another mapping of that */
	struct ring ring;
};

struct sums {
	long calls, moved_calls, moves, lost, lost_calls;
	long held, held_moved;	/* pages */
	int error;		/* of move_pages() */
};

static bool is_private(const struct state *st)
{
	return st->kind == ANON || st->kind == ANON_THP;
}

/* Whether pages are what they are to be: a huge one may be split, to be moved. */
static bool still_huge(const struct state *st)
{
	return st->kind != ANON_THP ||
	       huge_anon_pages(st->addr) == st->nr_pages;
}

static char *page_at(const struct state *st, int page)
{
	return st->addr + page * st->page;
}

static void fill(char *addr, size_t len, uint64_t word)
{
	for (; len; len -= sizeof(word), addr += sizeof(word))
		__atomic_store_n((uint64_t *)addr, word, __ATOMIC_RELAXED);
}

/* How many slots of @copy, which was in a page, are not what was written last. */
static long compare_page(struct state *st, int page, const char *copy,
			 const char *where)
{
	uint64_t last = st->control->last, slots = SLOTS_BYTES / st->way->slot;
	uint64_t n, want, found;
	long lost = 0;
	size_t at;

	for (n = last > slots ? last - slots + 1 : 1; n <= last; n++) {
		want = journal_word(page, n);
		/* Each word of it: what copies may stop in between. */
		for (at = 0; at < st->way->slot; at += sizeof(want)) {
			memcpy(&found, copy + n % slots * st->way->slot + at,
			       sizeof(found));
			if (found != want)
				break;
		}
		if (at == st->way->slot)
			continue;
		lost++;
		if (st->examples-- > 0)
			ksft_print_msg("lost: page %d offset 0x%llx wrote 0x%llx found 0x%llx %s\n",
				       page,
				       (unsigned long long)(n % slots) *
				       st->way->slot, (unsigned long long)want,
				       (unsigned long long)found, where);
	}
	return lost;
}

/* Ways to write. */

/*
 * A piece of each slot comes from a page of its own, which is not mapped yet. The
 * pieces are as far from each other as the kernel maps pages around a fault.
 */
static size_t piece_at(int i)
{
	return i * 16 * psize();
}

static int open_process_vm(struct state *st)
{
	size_t size = piece_at(PIECES);
	struct iovec nothing = {};
	int fd;

	if (process_vm_writev(st->target, &nothing, 1, &nothing, 1, 0))
		return errno;
	fd = syscall(SYS_memfd_create, "source", 0);
	if (fd < 0 || ftruncate(fd, size))
		return errno;
	st->source = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	st->again = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	return st->source == MAP_FAILED || st->again == MAP_FAILED ? errno : 0;
}

static int write_process_vm(struct state *st, int page, size_t offset,
			    uint64_t word)
{
	struct iovec from[PIECES], to = { page_at(st, page) + offset, BLOCK };
	int i, tries, error = EIO;
	ssize_t got;

	for (i = 0; i < PIECES; i++) {
		fill(st->source + piece_at(i), BLOCK / PIECES, word);
		from[i].iov_base = st->again + piece_at(i);
		from[i].iov_len = BLOCK / PIECES;
	}
	if (madvise(st->again, piece_at(PIECES), MADV_DONTNEED))
		return errno;
	/* It may end early; the same again does no harm. */
	for (tries = 0; error == EIO && tries < TRIES; tries++) {
		got = process_vm_writev(st->target, from, PIECES, &to, 1, 0);
		if (got == BLOCK)
			error = 0;
		else if (got < 0)
			error = errno;
	}
	return error;
}

/* A loop device whose file is a page of memory; it goes when it is closed. */
static int open_direct(struct state *st)
{
	char path[LOOP_PATH_LEN];
	int fd;

	fd = syscall(SYS_memfd_create, "source", 0);
	if (fd < 0 || ftruncate(fd, SLOTS_BYTES))
		return errno;
	st->source = mmap(NULL, SLOTS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
			  fd, 0);
	if (st->source == MAP_FAILED)
		return errno;
	st->out = loop_open(fd, path, O_DIRECT);
	close(fd);
	return st->out < 0 ? -st->out : 0;
}

static int write_direct(struct state *st, int page, size_t offset, uint64_t word)
{
	ssize_t got;

	fill(st->source + offset, BLOCK, word);
	got = pread(st->out, page_at(st, page) + offset, BLOCK, offset);
	return got == BLOCK ? 0 : got < 0 ? errno : EIO;
}

static int open_io_uring(struct state *st)
{
	struct io_uring_params params = {};
	struct ring *ring = &st->ring;
	char *sq, *cq;

	st->source = mmap(NULL, SLOTS_BYTES, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	st->out = syscall(SYS_memfd_create, "source", 0);
	if (st->source == MAP_FAILED || st->out < 0)
		return errno;
	ring->fd = syscall(SYS_io_uring_setup, 1, &params);
	if (ring->fd < 0)
		return errno;
	sq = mmap(NULL, params.sq_off.array + params.sq_entries * 4,
		  PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd,
		  IORING_OFF_SQ_RING);
	cq = mmap(NULL, params.cq_off.cqes + params.cq_entries *
		  sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE,
		  MAP_SHARED, ring->fd, IORING_OFF_CQ_RING);
	ring->sqes = mmap(NULL, params.sq_entries * sizeof(*ring->sqes),
			  PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd,
			  IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || ring->sqes == MAP_FAILED)
		return errno;
	ring->sq_tail = (unsigned int *)(sq + params.sq_off.tail);
	ring->sq_array = (unsigned int *)(sq + params.sq_off.array);
	ring->sq_mask = *(unsigned int *)(sq + params.sq_off.ring_mask);
	ring->cq_head = (unsigned int *)(cq + params.cq_off.head);
	ring->cq_mask = *(unsigned int *)(cq + params.cq_off.ring_mask);
	ring->cqes = (struct io_uring_cqe *)(cq + params.cq_off.cqes);
	return 0;
}

static int hold_io_uring(struct state *st)
{
	struct iovec buffers[MAX_PAGES];
	int i;

	for (i = 0; i < st->nr_pages; i++)
		buffers[i] = (struct iovec){ page_at(st, i), SLOTS_BYTES };
	return syscall(SYS_io_uring_register, st->ring.fd,
		       IORING_REGISTER_BUFFERS, buffers, st->nr_pages) ?
	       errno : 0;
}

/* One request at a time, and it is waited for. */
static int write_io_uring(struct state *st, int page, size_t offset,
			  uint64_t word)
{
	struct ring *ring = &st->ring;
	unsigned int tail = *ring->sq_tail, head = *ring->cq_head;
	unsigned int slot = tail & ring->sq_mask;
	int got;

	if (pwrite(st->out, &word, sizeof(word), 0) != sizeof(word))
		return errno;
	ring->sqes[slot] = (struct io_uring_sqe){
		.opcode = IORING_OP_READ_FIXED,
		.fd = st->out,
		.addr = (uintptr_t)(page_at(st, page) + offset),
		.len = sizeof(word),
		.buf_index = page,
	};
	ring->sq_array[slot] = slot;
	__atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS,
		    NULL, 0) < 0)
		return errno;
	got = ring->cqes[head & ring->cq_mask].res;
	__atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
	return got == sizeof(word) ? 0 : got < 0 ? -got : EIO;
}

static int release_io_uring(struct state *st, long *lost)
{
	return syscall(SYS_io_uring_register, st->ring.fd,
		       IORING_UNREGISTER_BUFFERS, NULL, 0) ? errno : 0;
}

static int open_vmsplice(struct state *st)
{
	return pipe(st->pipe) ? errno : 0;
}

static int hold_vmsplice(struct state *st)
{
	struct iovec buffer = { .iov_len = SLOTS_BYTES };
	int i;

	for (i = 0; i < st->nr_pages; i++) {
		buffer.iov_base = page_at(st, i);
		if (vmsplice(st->pipe[1], &buffer, 1, 0) != SLOTS_BYTES)
			return errno;
	}
	return 0;
}

static int write_vmsplice(struct state *st, int page, size_t offset,
			  uint64_t word)
{
	__atomic_store_n((uint64_t *)(page_at(st, page) + offset), word,
			 __ATOMIC_RELAXED);
	return 0;
}

/* The other end of the pipe has what was written since. */
static int release_vmsplice(struct state *st, long *lost)
{
	char copy[SLOTS_BYTES];
	int i;

	for (i = 0; i < st->nr_pages; i++) {
		if (read(st->pipe[0], copy, sizeof(copy)) != sizeof(copy))
			return errno ?: EIO;
		*lost += compare_page(st, i, copy, "in the pipe");
	}
	return 0;
}

static const struct way process_vm = {
	.name = "process_vm",
	.slot = BLOCK,
	.open = open_process_vm,
	.write = write_process_vm,
	.needs = "CONFIG_CROSS_MEMORY_ATTACH",
};

static const struct way direct = {
	.name = "direct",
	.slot = BLOCK,
	.open = open_direct,
	.write = write_direct,
	.needs = "CONFIG_BLK_DEV_LOOP",
};

static const struct way io_uring = {
	.name = "io_uring",
	.slot = sizeof(uint64_t),
	.open = open_io_uring,
	.hold = hold_io_uring,
	.write = write_io_uring,
	.release = release_io_uring,
	.needs = "CONFIG_IO_URING, and kernel.io_uring_disabled=0",
};

static const struct way in_pipe = {
	.name = "vmsplice",
	.slot = sizeof(uint64_t),
	.open = open_vmsplice,
	.hold = hold_vmsplice,
	.write = write_vmsplice,
	.release = release_vmsplice,
	.needs = "pipes",
};

/* Pages, and what has to be in them. */

/* Word @n to all pages. */
static int write_all(struct state *st, uint64_t n)
{
	size_t offset = n % (SLOTS_BYTES / st->way->slot) * st->way->slot;
	int page, error;

	for (page = 0; page < st->nr_pages; page++) {
		count_up(&st->control->begun[page], 1);
		error = st->way->write(st, page, offset, journal_word(page, n));
		if (error)
			return error;
		count_up(&st->control->done[page], 1);
	}
	__atomic_store_n(&st->control->last, n, __ATOMIC_RELEASE);
	return 0;
}

static long compare_all(struct state *st)
{
	char copy[SLOTS_BYTES];
	long lost = 0;
	int i;

	for (i = 0; i < st->nr_pages; i++) {
		if (pread(st->self, copy, sizeof(copy),
			  (off_t)page_at(st, i)) != sizeof(copy))
			return -errno;
		lost += compare_page(st, i, copy, "in the page");
	}
	return lost;
}

/* Where the pages are. Those that are nowhere have an error number. */
static void locate(const struct state *st, int *nodes)
{
	void *pages[MAX_PAGES];
	int i;

	for (i = 0; i < st->nr_pages; i++) {
		pages[i] = page_at(st, i);
		/* It is there, but maybe not mapped here any more. */
		__atomic_load_n((char *)pages[i], __ATOMIC_RELAXED);
	}
	if (move_pages(0, st->nr_pages, pages, NULL, nodes, 0))
		for (i = 0; i < st->nr_pages; i++)
			nodes[i] = -ENOENT;
}

/*
 * Each page to the node where it is not, with one call. Returns how many went
 * there, and in @wrote whether anything was written to one of them meanwhile.
 */
static long move_all(struct state *st, struct sums *sums, bool *wrote)
{
	int from[MAX_PAGES], to[MAX_PAGES], status[MAX_PAGES];
	unsigned long begun[MAX_PAGES], done[MAX_PAGES];
	void *pages[MAX_PAGES];
	long moved = 0;
	int i;

	*wrote = false;
	locate(st, from);
	for (i = 0; i < st->nr_pages; i++) {
		begun[i] = counted(&st->control->begun[i]);
		pages[i] = page_at(st, i);
		to[i] = st->nodes[from[i] == st->nodes[0]];
	}
	sums->calls++;
	if (move_pages(0, st->nr_pages, pages, to, status, MPOL_MF_MOVE_ALL) < 0)
		sums->error = errno;
	for (i = 0; i < st->nr_pages; i++)
		done[i] = counted(&st->control->done[i]);
	locate(st, to);
	for (i = 0; i < st->nr_pages; i++) {
		if (from[i] < 0 || to[i] < 0 || from[i] == to[i])
			continue;
		moved++;
		/* One that had begun before may have been over, all but counted. */
		*wrote = *wrote || done[i] > begun[i];
	}
	return moved;
}

static void *writer_main(void *arg)
{
	struct state *st = arg;
	struct control *control = st->control;
	uint64_t n = control->last;
	uint32_t phase = 0;
	int error;

	__atomic_store_n(&control->tid, syscall(SYS_gettid), __ATOMIC_RELEASE);
	pin_to_cpu(st->writer_cpu);
	for (;;) {
		phase = wait_for_change(&control->phase, phase);
		do {
			error = phase % 2 ? write_all(st, ++n) : 0;
			if (error)
				control->error = error;
			if (control->ack != phase)
				set_and_wake(&control->ack, phase);
		} while (phase % 2 && !error &&
			 __atomic_load_n(&control->phase, __ATOMIC_ACQUIRE) ==
			 phase);
	}
	return NULL;
}

/* Have the thread write, or not. Returns whether it obeys. */
static bool next_phase(struct state *st)
{
	struct control *control = st->control;
	struct wait_limit limit = {};
	uint32_t ack;
	pid_t tid;

	set_and_wake(&control->phase, control->phase + 1);
	while ((ack = __atomic_load_n(&control->ack, __ATOMIC_ACQUIRE)) !=
	       control->phase) {
		tid = __atomic_load_n(&control->tid, __ATOMIC_ACQUIRE);
		if (!within_limit(&limit, &tid, 1, STEP_TIMEOUT_MS))
			return false;
		wait_a_while(&control->ack, ack, 100);
	}
	return true;
}

/* The tests. */

static void report(struct __test_metadata *_metadata, struct state *st,
		   const struct sums *sums, long want)
{
	/* None is to end before it is killed. */
	int died = crew_ended(&st->crew);

	ksft_print_msg("migrate_pinned_write: backing=%s trigger=%s sharers=%d control=no",
		       kind_name[st->kind], st->way->name,
		       is_private(st) ? 1 : 2);
	printf(" calls=%ld failed_calls=0 errno=%d moved_calls=%ld migrations=%ld",
	       sums->calls, sums->error, sums->moved_calls, sums->moves);
	printf(" lost_migrations=%ld lost_writes=%ld held=%ld held_moved=%ld\n",
	       sums->lost_calls, sums->lost, sums->held, sums->held_moved);

	EXPECT_EQ(0, sums->held_moved)
		TH_LOG("%ld pages were migrated while they were held",
		       sums->held_moved);
	EXPECT_EQ(0, sums->lost)
		TH_LOG("%ld writes lost in %ld of %ld rounds", sums->lost,
		       sums->lost_calls, sums->calls);
	EXPECT_EQ(0, died)
		TH_LOG("the other process died");
	if (sums->held_moved || sums->lost || died)
		return;
	if (!sums->moves && sums->error)
		SKIP(return, "move_pages does not work here: %s",
		     strerror(sums->error));
	if (sums->moved_calls < MIN_MOVES && sums->moved_calls < want)
		SKIP(return, "inconclusive: only %ld of %ld calls moved pages that were written to",
		     sums->moved_calls, sums->calls);
}

static void add_lost(struct sums *sums, long lost)
{
	sums->lost += lost;
	sums->lost_calls += lost > 0;
}

/* Whether there is time for one more call. Quick ones may miss every write. */
static bool goes_on(const struct sums *sums, long want, long ms)
{
	return (sums->calls < 4 * want || ms < QUICK_MS) && ms < TEST_MS;
}

static void run_race(struct __test_metadata *_metadata, struct state *st)
{
	long want = env_count("MIGRATE_PINNED_WRITE_CALLS", CALLS), moved, lost;
	struct control *control = st->control;
	uint64_t start = cycles_clock();
	struct sums sums = {};
	pthread_t thread;
	bool wrote;

	ASSERT_EQ(0, pthread_create(&thread, NULL, writer_main, st));
	while (sums.moved_calls < want && still_huge(st) &&
	       goes_on(&sums, want, ms_since(start))) {
		ASSERT_TRUE(next_phase(st));
		moved = move_all(st, &sums, &wrote);
		ASSERT_TRUE(next_phase(st));
		ASSERT_EQ(0, control->error)
			TH_LOG("%s failed: %s", st->way->name,
			       strerror(control->error));
		lost = compare_all(st);
		ASSERT_GE(lost, 0);
		add_lost(&sums, lost);
		sums.moves += moved;
		sums.moved_calls += moved && wrote;
		/* What is lost is lost: it is to be counted once. */
		if (lost)
			break;
	}
	report(_metadata, st, &sums, want);
}

static void run_held(struct __test_metadata *_metadata, struct state *st)
{
	long want = env_count("MIGRATE_PINNED_WRITE_CALLS", CALLS), moved, lost;
	struct control *control = st->control;
	uint64_t start = cycles_clock();
	struct sums sums = {};
	bool wrote;
	int error;

	while (sums.moved_calls < want && sums.calls < 4 * want &&
	       still_huge(st) && ms_since(start) < TEST_MS) {
		lost = 0;
		error = st->way->hold(st);
		if (error)
			SKIP(return, "%s cannot keep such pages: %s",
			     st->way->name, strerror(error));
		moved = move_all(st, &sums, &wrote);
		sums.held += st->nr_pages;
		sums.held_moved += moved;
		error = write_all(st, control->last + 1);
		if (!error)
			error = st->way->release(st, &lost);
		ASSERT_EQ(0, error)
			TH_LOG("%s failed: %s", st->way->name, strerror(error));
		if (!lost)
			lost = compare_all(st);
		ASSERT_GE(lost, 0);
		add_lost(&sums, lost);
		if (lost || moved)
			break;
		/* It is not that they can go nowhere. */
		moved = move_all(st, &sums, &wrote);
		sums.moves += moved;
		sums.moved_calls += moved > 0;
		lost = compare_all(st);
		ASSERT_GE(lost, 0);
		add_lost(&sums, lost);
		if (lost)
			break;
	}
	report(_metadata, st, &sums, want);
}

static void run(struct __test_metadata *_metadata, struct state *st,
		const struct way *way)
{
	int error;

	st->way = way;
	error = way->open(st);
	if (error)
		SKIP(return, "%s: needs %s: %s", way->name, way->needs,
		     strerror(error));
	if (way->hold)
		run_held(_metadata, st);
	else
		run_race(_metadata, st);
}

static int open_file(enum kind kind, size_t size)
{
	int fd;

	if (kind == HUGETLB)
		return hugetlbfs_open(pud_size());
	fd = syscall(SYS_memfd_create, "migrate_pinned_write", 0);
	if (fd < 0 || ftruncate(fd, size))
		return -errno;
	return fd;
}

/* The other process, whose memory is written to. */
static __noreturn void other_main(struct state *st)
{
	int i;

	for (i = 0; i < st->nr_pages; i++)
		__atomic_load_n(page_at(st, i), __ATOMIC_RELAXED);
	set_and_wake(&st->control->ready, 1);
	for (;;)
		pause();
}

FIXTURE_SETUP(migrate_pinned_write)
{
	int i, nr_cpus, cpus[CPU_SETSIZE];
	struct state *st;
	const char *why;

	st = calloc(1, sizeof(*st));
	ASSERT_NE(NULL, st);
	self->st = st;
	st->kind = variant->kind;
	st->examples = EXAMPLES;
	st->fd = -1;
	st->target = getpid();
	if (geteuid())
		SKIP(return, "needs root, for MPOL_MF_MOVE_ALL");
	nr_cpus = cpu_list(cpus, ARRAY_SIZE(cpus));
	if (nr_cpus < 2)
		SKIP(return, "needs two CPUs");
	st->writer_cpu = cpus[nr_cpus - 1];
	pin_to_cpu(cpus[0]);
	why = nodes_lack(st->nodes, 2, cpus[0]) ?:
	      guard_lacks();
	if (why)
		SKIP(return, "%s", why);
	st->page = psize();
	st->nr_pages = NR_BASE;
	if (st->kind == HUGETLB) {
		/* Each node has room for all of them. */
		why = pool_lacks(st->nodes, 2, NR_HUGE + SPARE);
		if (why)
			SKIP(return, "%s", why);
	}
	if (st->kind == HUGETLB || st->kind == ANON_THP) {
		st->page = pmd_size();
		st->nr_pages = NR_HUGE;
	}
	st->control = share_memory(sizeof(*st->control));
	ASSERT_NE(NULL, st->control);
	st->self = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	ASSERT_GE(st->self, 0);
	why = area_lacks(&st->addr, 1);
	if (why)
		SKIP(return, "%s", why);

	if (is_private(st)) {
		ASSERT_EQ(0, mprotect(st->addr, st->nr_pages * st->page,
				      PROT_READ | PROT_WRITE));
		madvise(st->addr, st->nr_pages * st->page, st->kind == ANON ?
			MADV_NOHUGEPAGE : MADV_HUGEPAGE);
	} else {
		st->fd = open_file(st->kind, st->nr_pages * st->page);
		if (st->fd < 0)
			SKIP(return, "no file: %s", strerror(-st->fd));
		ASSERT_EQ(0, map_pud(st->fd, st->addr));
	}
	/* A page that nobody has written to has no memory of its own. */
	for (i = 0; i < st->nr_pages; i++)
		memset(page_at(st, i), 0, SLOTS_BYTES);
	if (!still_huge(st))
		SKIP(return,
		     "no huge pages: needs CONFIG_TRANSPARENT_HUGEPAGE, not never in its file enabled, and some free memory");
	if (!is_private(st)) {
		st->target = crew_fork(&st->crew);
		ASSERT_GE(st->target, 0);
		if (!st->target)
			other_main(st);
		ASSERT_EQ(1, wait_for_change(&st->control->ready, 0));
	}
	for (i = 0; i < 2; i++)
		migrate_node(0, st->nodes[i], st->nodes[1]);
}

FIXTURE_TEARDOWN(migrate_pinned_write)
{
	/* Threads, rings and pipes end with the process. */
	crew_kill(&self->st->crew, STEP_TIMEOUT_MS);
	if (self->st->kind == HUGETLB && self->st->addr)
		unmap_pud(self->st->addr);
	if (self->st->fd >= 0)
		close(self->st->fd);
	guard_stop();
}

TEST_F_TIMEOUT(migrate_pinned_write, process_vm, 120)
{
	run(_metadata, self->st, &process_vm);
}

TEST_F_TIMEOUT(migrate_pinned_write, direct, 120)
{
	run(_metadata, self->st, &direct);
}

TEST_F_TIMEOUT(migrate_pinned_write, io_uring, 120)
{
	run(_metadata, self->st, &io_uring);
}

TEST_F_TIMEOUT(migrate_pinned_write, vmsplice, 120)
{
	run(_metadata, self->st, &in_pipe);
}

TEST_HARNESS_MAIN
