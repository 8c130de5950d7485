/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests that watch page migration have in common: the machine (huge
 * page pool, nodes, memory blocks) and how it is put back, where a page is, and
 * the journal that a writer keeps inside the page it writes to.
 */
#ifndef _MIGRATE_UTIL_H
#define _MIGRATE_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "kselftest.h"

/*
 * The guardian: a process that outlives the test and puts the machine back.
 *
 * guard_start() forks it; it sleeps on a pipe whose other end the test and all
 * its children hold, so it wakes when the last of them is gone, however it
 * went. Then it writes back, newest first, what guard_undo() was told.
 *
 * There is one at a time: guard_start() waits for that of another test, so no
 * setting is to be read before it returns. guard_lacks() does the same for
 * FIXTURE_SETUP, and returns NULL or a line that says why that cannot be, or
 * which of root's rights are missing. From then on the test dies with the one
 * that started it.
 * guard_stop() waits until all is written back. guard_leave() is for a test
 * whose processes do not end: all is written back without waiting for them.
 * guard_end() is for FIXTURE_TEARDOWN: it does what fits, and returns NULL or a
 * line for EXPECT, that says what the test has left behind. A failure there
 * counts, and takes the place of a SKIP.
 *
 * guard_left() says whether a test before, of the same program, did the latter.
 */
int guard_start(void);
const char *guard_lacks(void);
const char *rights_lack(void);
int guard_undo(const char *path, const char *value);
void guard_stop(void);
void guard_leave(void);
const char *guard_end(bool gone);
bool guard_left(void);

/*
 * Whether the kernel has died of something: an oops or a BUG, since it started.
 * It may go on, with nobody but the process gone that it happened to, or with a
 * lock that is held for ever. guard_end() tells of one since rights_lack() or
 * guard_lacks() was asked.
 */
bool kernel_has_died(void);

/*
 * For a test that may do harm, @how, to a kernel with the defect: NULL if the
 * user allows it by HUGETLB_PMD_CHURN=1, or a line that says how to.
 */
const char *churn_lacks(const char *how);

/* One line of a file in sysfs or procfs. Both return 0 or -errno. */
int file_read(const char *path, char *buf, size_t len);
int file_write(const char *path, const char *value);
long file_read_long(const char *path);

/* A number of /proc/vmstat, or -1 if the kernel does not say. */
long vm_event(const char *name);

/*
 * A number in the environment, or @otherwise. What is no number ends the test: it
 * fails. So does, for env_count(), a number below 1: nothing would be done, and
 * the test would pass.
 */
long env_long(const char *name, long otherwise);
long env_count(const char *name, long otherwise);

/* Memory that is shared with all that are forked; NULL for want of it. */
void *share_memory(size_t size);

/*
 * Words in memory that processes share. wait_for_change() returns the new
 * value, wait_a_while() whether there is one, after @ms milliseconds or sooner.
 */
void set_and_wake(uint32_t *word, uint32_t val);
uint32_t wait_for_change(uint32_t *word, uint32_t old);
bool wait_a_while(uint32_t *word, uint32_t old, int ms);

/* Ends the process, with a line that says why, if that cannot be. */
void pin_to_cpu(int cpu);

/*
 * The processes that a test forks, in that order.
 *
 * crew_fork() returns what fork(2) does. The child dies with the test, and has
 * none of its signal handlers. crew_nobody() makes it an ordinary user who still
 * dies with the test; it returns 0 or an error number. crew_give_up() is for a
 * child that cannot go on: it leaves the error number in memory that the test
 * shares, and exits.
 */
#define CREW_MAX	80

struct crew {
	pid_t pids[CREW_MAX];	/* 0 for one that has ended */
	int status[CREW_MAX];	/* as wait(2) said, of one that has ended */
	int nr;
	bool waited;	/* in vain, and told where those are that are left */
};

/* Why a test is skipped of which vm_event("oom_kill") grew, and one was killed. */
#define OOM_KILLED	\
	"inconclusive: the kernel was short of memory, and killed a process"

pid_t crew_fork(struct crew *crew);
int crew_nobody(void);
__noreturn void crew_give_up(int *word, int error);

/*
 * How many have ended so far, and how many of those by SIGKILL; whether all
 * have, within @ms milliseconds; and the same with those killed that are left.
 * One that is stuck in the kernel does not end. As long as one is runnable, and
 * may be waiting for a CPU, that takes up to three times as long. The first time
 * that some are left, it is told where they are. crew_kill_one() kills the one
 * that was forked @nr others later than the first.
 */
int crew_ended(struct crew *crew);
int crew_killed(const struct crew *crew);
bool crew_wait(struct crew *crew, int ms);
bool crew_kill(struct crew *crew, int ms);
bool crew_kill_one(struct crew *crew, int nr, int ms);

/*
 * The end of a wait for @nr processes or threads, @pids, of which 0 is none: for an
 * answer, or whatever they are to do. To be asked again and again, ten times a
 * second or more often, with a limit that is all zeroes at first. Returns whether to
 * wait on: @ms milliseconds since then, and up to three times as long while one of
 * them is runnable, and may be waiting for a CPU.
 */
struct wait_limit {
	uint64_t start;		/* when it was asked first */
	uint64_t seen;		/* when one was runnable, at the last such look */
};

bool within_limit(struct wait_limit *limit, const pid_t *pids, int nr, int ms);

/*
 * How many of those that have ended did so otherwise than by _exit(0): one that an
 * oops has killed may have been the last to end, and have left no error.
 */
int crew_failed(const struct crew *crew);

/*
 * For FIXTURE_TEARDOWN: kill those that are left, within @ms milliseconds, close
 * @fd if it is open, and return what guard_end() does.
 */
const char *crew_end(struct crew *crew, int fd, int ms);

/* What the kernel knows of a process that is stuck, and where that is. */
void tell_where(pid_t pid);

/* A number that several processes add to, in memory that they share. */
static inline void count_up(unsigned long *counter, unsigned long nr)
{
	__atomic_fetch_add(counter, nr, __ATOMIC_RELEASE);
}

static inline unsigned long counted(const unsigned long *counter)
{
	return __atomic_load_n(counter, __ATOMIC_ACQUIRE);
}

/*
 * The CPUs that this process may run on, @max of them at most; returns how many
 * there are.
 */
int cpu_list(int *cpus, int max);

/*
 * Two nodes with memory: nodes[0], where pages are to leave from, and nodes[1],
 * that of @cpu if there is a choice, where they go. nodes_lack() returns NULL or,
 * where there are less than @wanted, 1 or 2, a line that says so.
 */
const char *nodes_lack(int nodes[2], int wanted, int cpu);

/*
 * mbind(2) to one node, and migrate_pages(2) from one to another, whatever their
 * numbers. They return what these do, with errno.
 */
long bind_range(void *addr, size_t len, int node, unsigned int flags);
long migrate_node(pid_t pid, int from, int to);

/* Read from @nr huge pages; returns the number of page faults that it took. */
long touch_pages(char *addr, int nr);

/* Bytes in a huge page that one PMD entry maps, and in the range of a PUD. */
size_t pmd_size(void);
size_t pud_size(void);

/*
 * Address space for @nr PUDs, aligned to one and not accessible. NULL where
 * there is none. area_lacks() says so, for FIXTURE_SETUP.
 */
char *reserve_puds(int nr);
const char *area_lacks(char **area, int nr);

/*
 * Move the huge page that is mapped at @from to @to, by mremap(2), and ask where
 * it is. Returns NULL, or a line that says why this kernel cannot do that.
 */
const char *mremap_lacks(char *from, char *to);

/*
 * Map the first pud_size() bytes of a file there, shared and to be written to;
 * 0 or an error number. unmap_pud() unmaps it, and keeps the addresses from
 * being used by anything else.
 */
int map_pud(int fd, char *addr);
void unmap_pud(char *addr);

/*
 * Do processes share a page table if they map the first pud_size() bytes of a
 * file in the same way, with @prot? This one does so at @addr, and touches the
 * pages @first to @first + @nr - 1. Then another one does. Returns how many page
 * faults that one took: 1 if so, and @nr if not; or -errno. Nothing stays mapped.
 */
long faults_to_share(int fd, char *addr, int prot, int first, int nr);

/* The line for a SKIP where @nr pages took more faults than one, or none. */
const char *not_shared(long faults, int nr);

/*
 * See to it that at least @want huge pages of pmd_size() are free on @node, and
 * reserved by nobody. Returns how many are. The guardian restores the size of the
 * pool.
 */
long pool_fill(int node, long want);

/*
 * The same for each of @nr nodes, and this process can have them all. Returns
 * NULL, or a line that says what is missing.
 */
const char *pool_lacks(const int *nodes, int nr, long want);

/*
 * Have the first @nr huge pages of @fd there, or, where that is below zero, those of
 * a mapping at @addr. Others may have taken what pool_lacks() has seen: who touches
 * a page then is killed. Returns NULL, or a line that says why they are not.
 */
const char *populate_lacks(int fd, char *addr, int nr);

/*
 * Huge pages of pmd_size() that are reserved: they count as free until they are
 * touched, but are not to be had. Below zero if a kernel has lost count of them.
 */
long pool_reserved(void);

/*
 * Huge pages of @node that are in use; 0 where that cannot be known. And whether
 * any process that is not of this test has some, so that their number changes by
 * itself.
 */
long pool_used(int node);
bool pool_is_shared(void);

/*
 * A new mount of a file system that is nowhere: a descriptor of its root, or
 * -errno. It goes with the last file that is open in it, so a test that is killed
 * leaves nothing behind. @options as mount(8) has them behind -o, or NULL.
 */
int mount_nowhere(const char *type, const char *options);

/*
 * A hugetlbfs with pages of pmd_size() that is mounted nowhere, and a
 * file in it that has no name any more, @size bytes long. Both return a
 * descriptor or -errno. @options begins with a comma, or is empty.
 * hugetlbfs_open() does both, for who needs nothing but the file. file_lacks()
 * is the same for FIXTURE_SETUP: NULL, or a line that says why there is none.
 */
int hugetlbfs_mount(const char *options);
int hugetlbfs_file(int dir, size_t size);
int hugetlbfs_open(size_t size);
const char *file_lacks(int *fd, size_t size);

/*
 * Huge pages that are left in a mount with a size: its own count, which nobody
 * else's pages are in. -errno, or a number that means nothing without a size.
 */
long hugetlbfs_free(int dir);

/*
 * NUMA balancing: none for 0, or walks through @mib MiB of memory each, as often
 * as there can be: every 10 ms, and no more than 2560 MiB in a second. The
 * guardian restores the settings. Returns whether the kernel has it.
 */
bool numa_balancing(int mib);

/*
 * Where the page at @addr of process @pid (0: this one) is. Both return -errno
 * where there is no page: touch it and ask again.
 */
int page_node(pid_t pid, void *addr);
int64_t page_pfn(pid_t pid, void *addr);

/* Huge pages that the VMA that begins at @addr maps by PMDs, -1 if there is none. */
long huge_anon_pages(const char *addr);

/*
 * The size of a memory block, and the number of the block that holds @pfn.
 * -errno where blocks have no files.
 */
long block_bytes(void);
long block_of_pfn(uint64_t pfn);
bool block_removable(long block);	/* as far as the kernel can tell */
/* -EINTR after some seconds, where a page is pinned. SIGALRM is not to be blocked. */
int block_offline(long block);
int block_online(long block);

/* Where to write the number of a poisoned page frame to have it back. */
#define UNPOISON_PFN	"/sys/kernel/debug/hwpoison/unpoison-pfn"

/* NULL, or a line that says why that cannot be done. */
const char *unpoison_lacks(void);

/*
 * How often a tracepoint was passed, since it was opened, by this process and by
 * those that it has forked since: the kernel's own word for what a test concludes
 * from faults. Nothing of the machine's settings is changed for it.
 * tracepoint_open() takes the names of the group and of the event, and returns
 * whether the kernel has it.
 */
struct tracepoint {
	int fd;		/* -1 if not open */
};

bool tracepoint_open(struct tracepoint *tp, const char *group,
		     const char *event);
long tracepoint_count(const struct tracepoint *tp);	/* 0 if not open */
void tracepoint_close(struct tracepoint *tp);

/* Take back the poison that soft offlining leaves on @pfn. */
int pfn_unpoison(uint64_t pfn);

/*
 * Time stamps that are cheap enough for a writer's loop, and the same on every
 * CPU. cycles_to_us() is right once some milliseconds have passed since
 * cycles_start().
 */
void cycles_start(void);
double cycles_to_us(uint64_t cycles);
uint64_t cycles_clock(void);	/* in nanoseconds, for want of a counter */
long ms_since(uint64_t start);	/* milliseconds since cycles_clock() said so */

static inline uint64_t cycles(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
	uint64_t val;

	asm volatile("mrs %0, cntvct_el0" : "=r" (val));
	return val;
#else
	return cycles_clock();
#endif
}

/*
 * The journal of a writer, inside the page that it writes to.
 *
 * A writer numbers its writes 1, 2, 3, ... and knows nothing but the number of
 * the last. Write n goes to slot n % SLOTS of the first ring; every 16th write
 * goes to the second ring as well, every 256th to the third and every 4096th to
 * the fourth. From the last number follows what every slot has to hold, so a
 * lost write is seen until its slot is used again, and the further back writes
 * were lost, the more of them it takes for one to be still there:
 *
 *	ring 0  | n-127 ...    n-2   n-1      n |	every write
 *	ring 1  | n-2032 ...  n-32  n-16      n |	every 16th
 *	ring 2  | n-32512 ... n-512 n-256     n |	every 256th
 *	ring 3  | n-520192 ...     n-4096     n |	every 4096th
 *
 * The whole of it is 4 KiB, so that one TLB entry covers it even where huge
 * pages are cached in small pieces, as QEMU's TCG does: a writer that misses
 * the TLB meets the migration entry and waits, and writes nothing to be lost.
 */
#define JOURNAL_RINGS	4
#define JOURNAL_SHIFT	4
#define JOURNAL_SLOTS	128
#define JOURNAL_WORDS	(JOURNAL_RINGS * JOURNAL_SLOTS)
#define JOURNAL_BYTES	(JOURNAL_WORDS * sizeof(uint64_t))

/* What is written: who in the top byte, then the number within the ring. */
static inline uint64_t journal_word(unsigned int writer, uint64_t nr)
{
	return (uint64_t)(writer + 1) << 56 | nr;
}

static inline void journal_write(uint64_t *journal, unsigned int writer,
				 uint64_t n)
{
	int ring;

	for (ring = 0; ring < JOURNAL_RINGS; ring++) {
		__atomic_store_n(&journal[n % JOURNAL_SLOTS],
				 journal_word(writer, n), __ATOMIC_RELAXED);
		if (n & ((1 << JOURNAL_SHIFT) - 1))
			break;
		n >>= JOURNAL_SHIFT;
		journal += JOURNAL_SLOTS;
	}
}

struct journal_loss {
	size_t word;		/* index into the journal */
	uint64_t write;		/* number of the lost write */
	uint64_t wrote;
	uint64_t found;
};

/*
 * Compare @journal with what must be there after write number @last, calling
 * @lost for every slot that holds something else. Returns how many.
 */
size_t journal_check(const uint64_t *journal, unsigned int writer,
		     uint64_t last,
		     void (*lost)(const struct journal_loss *loss, void *arg),
		     void *arg);

/*
 * When writes were made: an array like the journal, but not in the page. Every
 * 16th write is stamped, in each ring that it goes to but the first.
 */
static inline void journal_stamp(uint64_t *stamps, uint64_t n, uint64_t now)
{
	int ring;

	for (ring = 1; ring < JOURNAL_RINGS; ring++) {
		n >>= JOURNAL_SHIFT;
		stamps[ring * JOURNAL_SLOTS + n % JOURNAL_SLOTS] = now;
		if (n % (1 << JOURNAL_SHIFT))
			break;
	}
}

/* A write of which both is known: when it was made, and if it is there. */
struct journal_sample {
	uint64_t stamp;
	uint64_t write;		/* its number */
	bool lost;
};

#define JOURNAL_SAMPLES	((JOURNAL_RINGS - 1) * JOURNAL_SLOTS)

/*
 * What a journal and its stamps still know of the writes @first to @last, the
 * oldest first: every 16th of the latest 2048, every 256th of the latest 32768,
 * every 4096th before. To be asked before anything in @journal is made good.
 * @samples has room for JOURNAL_SAMPLES. Returns how many there are.
 */
size_t journal_samples(const uint64_t *journal, const uint64_t *stamps,
		       unsigned int writer, uint64_t first, uint64_t last,
		       struct journal_sample *samples);

/*
 * Leave out samples until @max are left: those of the shortest time between
 * their neighbours go first, so pauses stay as they are, and none goes that
 * differs from a neighbour as long as there is another. Returns how many are
 * left.
 */
size_t journal_thin(struct journal_sample *samples, size_t nr, size_t max);

#endif /* _MIGRATE_UTIL_H */
