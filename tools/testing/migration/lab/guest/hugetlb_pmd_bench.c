// SPDX-License-Identifier: GPL-2.0
/*
 * What does it cost to migrate a huge page whose page table N mappings share?
 *
 * A kernel that unshares the table has to flush a whole PUD for each mapping,
 * and its process must fault to have the table back, now or when it wakes up. One
 * that leaves it shared flushes one page for each. This counts what either of them
 * takes; it is no test, and finds nothing wrong.
 *
 * N processes map a file and share the table; above MAX_PROCESSES each of that
 * many maps it more than once, a PUD each. "asleep": all of them sleep.
 * "hot": two write to all pages all the time, on CPUs of their own. Somebody
 * else, who maps nothing, moves one page of them after the other to the other
 * node, one a call. Before each call all who sleep are woken to touch the page,
 * so that all share the table. What they fault for that is part of the cost.
 *
 * Also: children, one after the other, that join the table and exit; and a
 * memory block full of such pages that goes offline.
 *
 * Each measurement is a line of figures, "# bench: key=value ...". They are
 * sums: times in microseconds, cal and tlb as in /proc/interrupts on all CPUs
 * ("-" where there is no such line), switches of all CPUs, faults of those who
 * share.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest.h"
#include "migrate_guard.h"
#include "migrate_hugetlb.h"
#include "migrate_memory.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define NR_PAGES	8
#define SPARE		2	/* free pages of a node, above what is needed */
#define HOT		2
#define CPUS		4	/* as the lab's guests have */
#define MAX_SHARERS	4096
#define MAX_PROCESSES	512
#define MAX_MAPS	(MAX_SHARERS / MAX_PROCESSES)
#define CALLS		40
#define CALL_SECONDS	10	/* no more calls after that */
#define FORKS		50
#define BLOCK_SHARERS	8
#define BLOCK_SECONDS	60
#define WORD_BYTES	64

struct control {
	unsigned int ready;
	unsigned int apart;		/* who does not share the table */
	unsigned int round;		/* who sleeps wakes up for it ... */
	unsigned int page;		/* ... and touches this page */
	unsigned int touched;	/* how many have */
	unsigned int over;		/* the round that is over */
};

struct counts {
	long cal, tlb, switches;
};

static const int sharers[] = { 2, 8, 64, MAX_PROCESSES, MAX_SHARERS };

static struct control *shared;
static char *where;		/* a PUD of address space for each mapping */
static int nodes[2];
static pid_t pids[MAX_PROCESSES];
static int nr_pids, nr_maps, nr_sleepers, nr_pages, fd;

/* The sum of the numbers behind @key, at the start of a line; -1 for none. */
static long sum_of(const char *path, const char *key)
{
	char *line = NULL, *pos, *end;
	size_t len = 0;
	long sum = -1;
	FILE *file;

	file = fopen(path, "r");
	if (!file)
		return -1;
	while (sum < 0 && getline(&line, &len, file) > 0) {
		pos = line + strspn(line, " ");
		if (strncmp(pos, key, strlen(key)))
			continue;
		pos += strlen(key);
		for (sum = 0;; pos = end) {
			long val = strtol(pos, &end, 10);

			if (end == pos)
				break;
			sum += val;
		}
	}
	free(line);
	fclose(file);
	return sum;
}

static struct counts count(void)
{
	return (struct counts){
		.cal = sum_of("/proc/interrupts", "CAL:"),
		.tlb = sum_of("/proc/interrupts", "TLB:"),
		.switches = sum_of("/proc/stat", "ctxt "),
	};
}

static void add_since(struct counts *sum, const struct counts *before)
{
	struct counts now = count();

	sum->cal += now.cal - before->cal;
	sum->tlb += now.tlb - before->tlb;
	sum->switches += now.switches - before->switches;
}

/* Of all who share, since they began. */
static long faults(void)
{
	long sum = 0, minor, major;
	char path[32], buf[512], *pos;
	int i;

	for (i = 0; i < nr_pids; i++) {
		snprintf(path, sizeof(path), "/proc/%d/stat", pids[i]);
		if (file_read(path, buf, sizeof(buf)))
			continue;
		pos = strrchr(buf, ')');
		if (pos && sscanf(pos + 1,
				  " %*c %*d %*d %*d %*d %*d %*u %ld %*d %ld",
				  &minor, &major) == 2)
			sum += minor + major;
	}
	return sum;
}

static const char *text(long val, char *buf, size_t len)
{
	snprintf(buf, len, "%ld", val);
	return buf;
}

/* The end of a line of figures. */
static void print_counts(const struct counts *sum)
{
	struct counts now = count();
	char cal[24], tlb[24];

	printf(" cal=%s tlb=%s switches=%ld",
	       now.cal < 0 ? "-" : text(sum->cal, cal, sizeof(cal)),
	       now.tlb < 0 ? "-" : text(sum->tlb, tlb, sizeof(tlb)),
	       sum->switches);
}

static void map(int nr)
{
	char *addr = where + nr * pud_size();

	if (mmap(addr, pud_size(), PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0) != addr)
		_exit(1);
}

/* Page @page through each mapping, to have the table in all of them. */
static void touch(int page)
{
	int i;

	for (i = 0; i < nr_maps; i++)
		touch_pages(where + i * pud_size() + page * pmd_size(), 1);
}

static __noreturn void write_main(int nr)
{
	unsigned long n;
	int i;

	for (n = 1;; n++)
		for (i = 0; i < nr_pages; i++)
			__atomic_store_n((unsigned long *)(where + i * pmd_size() +
						      nr * WORD_BYTES),
					 n, __ATOMIC_RELAXED);
}

static __noreturn void sleep_main(void)
{
	unsigned int round = 0;

	for (;;) {
		round = wait_for_change(&shared->round, round);
		touch(shared->page);
		if (__atomic_add_fetch(&shared->touched, 1, __ATOMIC_ACQ_REL) ==
		    (unsigned int)nr_sleepers)
			set_and_wake(&shared->over, round);
	}
}

static __noreturn void sharer_main(int nr, int nr_hot, pid_t parent)
{
	unsigned long mask = 1ul << nodes[0];
	int i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	signal(SIGALRM, SIG_DFL);
	/* Who calls is on CPU 0; who writes leaves one to those who sleep. */
	if (nr < nr_hot)
		pin_to_cpu(CPUS - 1 - nr);
	else
		pin_to_cpu(1 + nr % (CPUS - 1 - nr_hot));
	/* The first one allocates all pages. */
	if (!nr && set_mempolicy(MPOL_BIND, &mask, sizeof(mask) * 8))
		_exit(1);
	for (i = 0; i < nr_maps; i++) {
		map(i);
		if (touch_pages(where + i * pud_size(), nr_pages) >= nr_pages &&
		    (nr || i))
			__atomic_fetch_add(&shared->apart, 1, __ATOMIC_RELAXED);
	}
	__atomic_fetch_add(&shared->ready, 1, __ATOMIC_RELEASE);
	if (nr < nr_hot)
		write_main(nr);
	sleep_main();
}

static void wait_for(unsigned int *word, unsigned int want)
{
	unsigned int val;

	while ((val = __atomic_load_n(word, __ATOMIC_ACQUIRE)) != want) {
		wait_a_while(word, val, 10);
		if (waitpid(-1, NULL, WNOHANG) > 0)
			ksft_exit_fail_msg("a process that shares died\n");
	}
}

/* All who sleep touch @page, and share the table again. */
static void touch_all(int page)
{
	unsigned int round = shared->round + 1;

	if (!nr_sleepers)
		return;
	shared->page = page;
	shared->touched = 0;
	set_and_wake(&shared->round, round);
	wait_for(&shared->over, round);
}

/* Returns whether they share a table. */
static bool start(int nr, int nr_hot, int pages)
{
	pid_t parent = getpid();

	nr_maps = nr > MAX_PROCESSES ? nr / MAX_PROCESSES : 1;
	nr /= nr_maps;
	nr_pages = pages;
	nr_sleepers = nr - nr_hot;
	memset(shared, 0, sizeof(*shared));
	fd = hugetlbfs_open(pud_size());
	if (fd < 0)
		ksft_exit_fail_msg("no hugetlbfs: %s\n", strerror(-fd));
	for (nr_pids = 0; nr_pids < nr; nr_pids++) {
		pids[nr_pids] = fork();
		if (pids[nr_pids] < 0)
			ksft_exit_fail_msg("fork: %s\n", strerror(errno));
		if (!pids[nr_pids])
			sharer_main(nr_pids, nr_hot, parent);
		if (!nr_pids)
			wait_for(&shared->ready, 1);
	}
	wait_for(&shared->ready, nr);
	touch_all(0);
	return !shared->apart;
}

static void stop(void)
{
	int i;

	for (i = 0; i < nr_pids; i++)
		kill(pids[i], SIGKILL);
	for (i = 0; i < nr_pids; i++)
		waitpid(pids[i], NULL, 0);
	nr_pids = 0;
	close(fd);
}

/* Who writes may be about to fault on it. */
static int node_of(void *addr)
{
	int tries, node = -ENOENT;

	for (tries = 0; tries < 100 && node < 0; tries++) {
		node = page_node(pids[0], addr);
		if (node < 0)
			usleep(1000);
	}
	return node;
}

static void measure_calls(const char *state)
{
	unsigned long us = 0, began = cycles_clock(), now;
	struct counts sum = {}, before;
	int calls, moved = 0, target, status;
	long faulted = faults(), rc;
	void *addr;

	for (calls = 0; calls < CALLS && cycles_clock() - began <
	     CALL_SECONDS * 1000000000ul; calls++) {
		addr = where + calls % NR_PAGES * pmd_size();
		target = nodes[node_of(addr) == nodes[0]];
		before = count();
		now = cycles_clock();
		rc = move_pages(pids[0], 1, &addr, &target, &status,
				MPOL_MF_MOVE_ALL);
		us += (cycles_clock() - now) / 1000;
		add_since(&sum, &before);
		if (rc < 0 && errno != EBUSY && errno != EAGAIN)
			ksft_exit_fail_msg("move_pages: %s\n", strerror(errno));
		touch_all(calls % NR_PAGES);
		moved += node_of(addr) == target;
	}
	faulted = faults() - faulted;
	ksft_print_msg("bench: what=call state=%s sharers=%d calls=%d", state,
		       nr_pids * nr_maps, calls);
	printf(" moved=%d us=%lu", moved, us);
	print_counts(&sum);
	printf(" faults=%ld\n", faulted);
	ksft_test_result_pass("call_%s_%d\n", state, nr_pids * nr_maps);
}

static void measure_forks(void)
{
	struct counts sum = {}, before = count();
	unsigned long began = cycles_clock();
	int i, status;
	pid_t pid;

	for (i = 0; i < FORKS; i++) {
		pid = fork();
		if (!pid) {
			map(0);
			touch_pages(where, 1);
			_exit(0);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
			ksft_exit_fail_msg("a child did not end well\n");
	}
	began = cycles_clock() - began;
	add_since(&sum, &before);
	ksft_print_msg("bench: what=fork sharers=%d children=%d us=%lu",
		       nr_pids * nr_maps, FORKS, began / 1000);
	print_counts(&sum);
	printf("\n");
	ksft_test_result_pass("fork_%d\n", nr_pids * nr_maps);
}

/* The block that can go offline and has most pages; returns how many. */
static int best_block(long *block)
{
	long pfn[nr_pages];
	int i, k, nr, best = 0;

	for (i = 0; i < nr_pages; i++)
		pfn[i] = page_pfn(pids[0], where + i * pmd_size());
	for (i = 0; i < nr_pages; i++) {
		if (pfn[i] < 0 || !block_removable(block_of_pfn(pfn[i])))
			continue;
		for (nr = k = 0; k < nr_pages; k++)
			nr += pfn[k] >= 0 &&
			      block_of_pfn(pfn[k]) == block_of_pfn(pfn[i]);
		if (nr > best) {
			best = nr;
			*block = block_of_pfn(pfn[i]);
		}
	}
	return best;
}

static void interrupt(int sig)
{
}

static void measure_offline(void)
{
	struct sigaction act = { .sa_handler = interrupt };
	long per_block = block_bytes() / (long)pmd_size();
	unsigned long began, us, online_us, mask;
	struct counts sum = {}, before;
	int ret, in_block;
	long block, faulted;

	/* Of three blocks' worth of pages, one block is full. */
	if (per_block <= 0 ||
	    pool_fill(nodes[0], 3 * per_block) < 3 * per_block ||
	    pool_fill(nodes[1], per_block + SPARE) < per_block + SPARE) {
		ksft_test_result_skip("no blocks, or too few huge pages\n");
		return;
	}
	if (!start(BLOCK_SHARERS, HOT, 3 * per_block)) {
		ksft_test_result_skip("tables are not shared\n");
		goto out;
	}
	in_block = best_block(&block);
	if (!in_block) {
		ksft_test_result_skip("no block that can go offline\n");
		goto out;
	}
	/* Newer kernels try until it works, or a signal comes. */
	sigaction(SIGALRM, &act, NULL);
	/* Moves nothing, but has pages put back that are on their way. */
	mask = 1ul << nodes[0];
	migrate_pages(0, sizeof(mask) * 8, &mask, &mask);
	faulted = faults();
	before = count();
	alarm(BLOCK_SECONDS);
	began = cycles_clock();
	ret = block_offline(block);
	us = (cycles_clock() - began) / 1000;
	alarm(0);
	add_since(&sum, &before);
	faulted = faults() - faulted;
	began = cycles_clock();
	if (block_online(block))
		ksft_exit_fail_msg("a block does not go online again\n");
	online_us = (cycles_clock() - began) / 1000;
	ksft_print_msg("bench: what=offline sharers=%d pages=%d first=%d",
		       nr_pids, in_block, !ret);
	printf(" us=%lu online_us=%lu", us, online_us);
	print_counts(&sum);
	printf(" faults=%ld\n", faulted);
	ksft_test_result_pass("offline\n");
out:
	stop();
}

static void prepare(void)
{
	const char *why;
	int i;

	if (geteuid() || sysconf(_SC_NPROCESSORS_ONLN) < CPUS)
		ksft_exit_skip("needs root and %d CPUs\n", CPUS);
	why = nodes_lack(nodes, 2, 0);
	if (why)
		ksft_exit_skip("%s\n", why);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (guard_start())
		ksft_exit_fail_msg("no guardian\n");
	for (i = 0; i < 2; i++)
		if (pool_fill(nodes[i], NR_PAGES + SPARE) < NR_PAGES + SPARE)
			ksft_exit_skip("needs %d huge pages a node\n",
				       NR_PAGES + SPARE);
	where = reserve_puds(MAX_MAPS);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!where || shared == MAP_FAILED)
		ksft_exit_fail_msg("no memory\n");
	pin_to_cpu(0);
}

int main(void)
{
	int i, hot;

	ksft_print_header();
	prepare();
	ksft_set_plan(3 * ARRAY_SIZE(sharers) + 1);
	for (hot = 0; hot < 2; hot++) {
		for (i = 0; i < (int)ARRAY_SIZE(sharers); i++) {
			if (!start(sharers[i], hot ? HOT : 0, NR_PAGES))
				ksft_exit_fail_msg("tables are not shared\n");
			measure_calls(hot ? "hot" : "asleep");
			if (!hot)
				measure_forks();
			stop();
		}
	}
	measure_offline();
	guard_stop();
	ksft_finished();
}
