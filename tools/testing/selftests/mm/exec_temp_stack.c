// SPDX-License-Identifier: GPL-2.0
/*
 * Does migration leave the temporary stack of exec alone?
 *
 * exec builds the new stack, arguments and environment and all, where it fits,
 * and later moves it to where it belongs: first the VMA, then, entry by entry,
 * the page tables. In between, an entry is not where the VMA says:
 *
 *	         VMA           page tables
 *	before   |####|        |eeee|
 *	between  |####|           |eeee|	rmap looks here: nothing
 *	after    |####|        |eeee|
 *
 * A page whose migration begins before and ends in between keeps its migration
 * entry: the walk that is to put the new page in place of it does not find it.
 * Whoever touches it later runs into a page that is not locked, and the kernel
 * stops with a BUG, or waits for it forever. So migration skips a stack that is
 * still marked as temporary.
 *
 * Some processes exec a program with large arguments in a loop, which reads all
 * of what it was given and ends, while pages are migrated by the trigger under
 * test. A program that is killed, that finds other arguments than it was given,
 * or that is stuck, is a failure. One that has had no CPU, or is stopped, is not.
 *
 * Pages are migrated everywhere and all the time, so their number says nothing. It
 * counts how often the trigger set out while a stack was there that exec was
 * building: each time, whoever migrates first waits for one. Memory that goes
 * offline is what such a stack lies in.
 *
 * Environment:
 *	EXEC_TEMP_STACK_SECONDS=n	how long a variant runs
 *	HUGETLB_PMD_MIGRATE_OFFLINE=1	also take memory offline
 */
#include "kselftest_harness.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_memory.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "vm_util.h"

#define MARKER		"exec_temp_stack: program"
/* Arguments of 100 KiB: 12 and 4 in the environment, of 2 MiB that may be. */
#define STRING_BYTES	(100 << 10)
#define NR_ARGS		12
#define NR_ENV		4
#define MAX_LOOPS	3
#define SECONDS		10
#define MORE_SECONDS	5	/* where these bring too few migrations */
#define MIN_MIGRATIONS	100	/* fewer are no evidence */
#define MIN_EXECS	10	/* of each loop: so are fewer of these */
#define MIN_MET		10	/* stacks that exec was building: the same */
#define MAX_SECONDS	30	/* with waits and the end of all: 120 */
/* A new stack may have a quarter of that; 2 MiB are wanted, and some room. */
#define STACK_LIMIT	(16ul << 20)
#define EXEC_FAILED	16	/* exit status: and the error number, up to 127 */
#define STUCK_MS	10000	/* before it is looked at where a process is */
#define SAME_MS		2000	/* and for how long that is to be so */
#define RUNNABLE_MS	40000	/* for one that may have had no CPU */
#define SPIN_SECONDS	5	/* of CPU time in the kernel alone */
#define MOVER_MS	30000	/* memory takes its time to go offline */
#define MEET_MS		50	/* to wait for a stack that exec is building */
#define MAX_STACK_PAGES	1024
#define ENTRY_PRESENT	0x8000000000000000ull	/* in /proc/<pid>/pagemap */
#define ENTRY_PFN	0x007fffffffffffffull

enum trigger { COMPACTION, MOVE_PAGES, BLOCK_OFFLINE };

static const char * const trigger_name[] = {
	"compaction", "move_pages", "block_offline",
};

static char letter(int nr)
{
	return 'a' + nr % 26;
}

static bool string_is_whole(const char *s, int nr)
{
	return s[0] == letter(nr) && !memcmp(s, s + 1, STRING_BYTES - 2) &&
	       !s[STRING_BYTES - 1];
}

/*
 * The program that is run: this one, by another name for its first argument.
 * Before main(), which would look at the rest of them.
 */
static __attribute__((constructor)) void program(int argc, char **argv,
						 char **envp)
{
	int i;

	if (argc < 1 || strcmp(argv[0], MARKER))
		return;
	for (i = 0; i < NR_ARGS; i++)
		if (!argv[1 + i] || !string_is_whole(argv[1 + i], i))
			_exit(2);
	for (i = 0; i < NR_ENV; i++)
		if (!envp[i] || !string_is_whole(envp[i], NR_ARGS + i))
			_exit(3);
	_exit(0);
}

struct loop {
	pid_t pid;		/* of the loop */
	pid_t child;		/* that execs at the moment, 0 for none */
	long execs;		/* that came to their end */
	int status;		/* of one that went wrong, as wait() has it */
	int error;		/* of a fork or an exec that failed */
	bool over;		/* it had to end for that error */
	bool wrong;
	bool stuck;		/* one did not come to its end */
	bool slow;		/* the same, and that may be nobody's fault */
};

struct shared {
	uint32_t stop;
	bool told;		/* where those are that do not end */
	long calls;		/* of the trigger */
	long failed_calls;
	long met;		/* stacks that exec was building at a call */
	struct loop loops[2 * MAX_LOOPS];
};

FIXTURE(exec_temp_stack)
{
	struct shared *shared;
	int nr_loops;
	int nodes[2];
	char *strings[NR_ARGS + NR_ENV];
	pid_t mover;
	bool left;		/* something may be stuck for good */
};

FIXTURE_VARIANT(exec_temp_stack)
{
	enum trigger trigger;
};

FIXTURE_VARIANT_ADD(exec_temp_stack, compaction) { .trigger = COMPACTION };
/*
 * Not migrate_pages(2): up to 6.6 it holds the lock of the mm all the time, which
 * exec wants for the move.
 */
FIXTURE_VARIANT_ADD(exec_temp_stack, move_pages) { .trigger = MOVE_PAGES };
FIXTURE_VARIANT_ADD(exec_temp_stack, block_offline) {
	.trigger = BLOCK_OFFLINE };

static bool stopped(struct shared *sh)
{
	return __atomic_load_n(&sh->stop, __ATOMIC_ACQUIRE);
}

static __noreturn void exec_program(char **strings, pid_t parent)
{
	char *argv[NR_ARGS + 2] = { MARKER }, *envp[NR_ENV + 1] = { };
	int i;

	/* Also of the program: no number of a process has to be kept. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	for (i = 0; i < NR_ARGS; i++)
		argv[1 + i] = strings[i];
	for (i = 0; i < NR_ENV; i++)
		envp[i] = strings[NR_ARGS + i];
	execve("/proc/self/exe", argv, envp);
	/* Not the program's fault: it has not been started. */
	_exit(EXEC_FAILED + (errno & 127));
}

static bool is_set(const bool *flag)
{
	return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

static void set(bool *flag)
{
	__atomic_store_n(flag, true, __ATOMIC_RELEASE);
}

/* A process that takes long. */

enum verdict { WAIT, STUCK, SLOW };

struct patience {
	uint64_t began;
	long ms;		/* before it is looked at */
	bool looked;
	unsigned long user, system;	/* the CPU time that it had by then */
	char state;		/* at the last look */
	unsigned long ticks;	/* the CPU time by then */
	uint64_t since;		/* when neither was the same any more */
};

static bool find_state(pid_t pid, char *state, unsigned long *user,
		       unsigned long *system)
{
	char path[32], buf[512], *field;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (file_read(path, buf, sizeof(buf)))
		return false;
	/* The name, which is in brackets, may have anything in it. */
	field = strrchr(buf, ')');
	return field &&
	       sscanf(field + 1,
		      " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
		      state, user, system) == 3;
}

/*
 * Whether a process is stuck: it waits in the kernel, where no signal reaches it
 * and it has no CPU time at all, or it is there all the time, since it takes the
 * same page fault again and again. One that does not run for want of a CPU, or
 * since somebody has stopped it, is slow.
 */
static enum verdict look_at(struct patience *patience, pid_t pid)
{
	unsigned long user, system;
	char state;

	if (ms_since(patience->began) < patience->ms)
		return WAIT;
	if (!find_state(pid, &state, &user, &system))
		return ms_since(patience->began) < RUNNABLE_MS ? WAIT : SLOW;
	if (!patience->looked) {
		patience->looked = true;
		patience->user = user;
		patience->system = system;
	}
	if (state != patience->state || user + system != patience->ticks) {
		patience->state = state;
		patience->ticks = user + system;
		patience->since = cycles_clock();
	}
	if (state != 'R' && state != 'Z' &&
	    ms_since(patience->since) >= SAME_MS)
		return state == 'D' ? STUCK : SLOW;
	if (ms_since(patience->began) < RUNNABLE_MS)
		return WAIT;
	user -= patience->user;
	system -= patience->system;
	return system >= SPIN_SECONDS * (unsigned long)sysconf(_SC_CLK_TCK) &&
	       user < system / 4 ? STUCK : SLOW;
}

/* Returns WAIT if the child came to its end. SIGCHLD is blocked. */
static enum verdict wait_for(struct loop *loop, const sigset_t *sigchld,
			     int *status)
{
	struct patience patience = { .began = cycles_clock(), .ms = STUCK_MS };
	const struct timespec tick = { .tv_sec = 1 };
	enum verdict verdict = WAIT;

	while (verdict == WAIT &&
	       waitpid(loop->child, status, WNOHANG) != loop->child) {
		sigtimedwait(sigchld, NULL, &tick);
		verdict = look_at(&patience, loop->child);
	}
	return verdict;
}

/* The child dies with who forked it, and is to be looked at before. */
static __noreturn void leave_it(struct shared *sh, bool *flag)
{
	set(flag);
	while (!is_set(&sh->told))
		usleep(20 * 1000);
	_exit(0);
}

/* Processes that were killed for want of memory; since 4.13. */
static long oom_kills(void)
{
	return vm_event("oom_kill");
}

/* Memory may be there again later; any other error will be there again, too. */
static void give_up(struct loop *loop, int error)
{
	loop->error = error;
	if (error != EAGAIN && error != ENOMEM) {
		set(&loop->over);
		_exit(0);
	}
	usleep(10 * 1000);
}

static __noreturn void exec_loop(struct shared *sh, struct loop *loop,
				 char **strings, pid_t parent)
{
	long kills = oom_kills();
	enum verdict verdict;
	sigset_t sigchld;
	pid_t child;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	sigemptyset(&sigchld);
	sigaddset(&sigchld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &sigchld, NULL);
	loop->pid = getpid();
	while (!stopped(sh)) {
		child = fork();
		if (!child)
			exec_program(strings, loop->pid);
		if (child < 0) {
			give_up(loop, errno);
			continue;
		}
		__atomic_store_n(&loop->child, child, __ATOMIC_RELEASE);
		verdict = wait_for(loop, &sigchld, &loop->status);
		if (verdict != WAIT)
			leave_it(sh, verdict == STUCK ? &loop->stuck :
							&loop->slow);
		__atomic_store_n(&loop->child, 0, __ATOMIC_RELEASE);
		if (WIFEXITED(loop->status) &&
		    WEXITSTATUS(loop->status) >= EXEC_FAILED) {
			give_up(loop, WEXITSTATUS(loop->status) - EXEC_FAILED);
			continue;
		}
		/* As the kernel does for want of memory: it may be no defect. */
		if (WIFSIGNALED(loop->status) &&
		    WTERMSIG(loop->status) == SIGKILL && oom_kills() > kills) {
			kills = oom_kills();
			give_up(loop, ENOMEM);
			continue;
		}
		if (loop->status) {
			set(&loop->wrong);
			_exit(0);
		}
		__atomic_store_n(&loop->execs, loop->execs + 1,
				 __ATOMIC_RELEASE);
	}
	_exit(0);
}

static bool compact(void)
{
	return !file_write("/proc/sys/vm/compact_memory", "1");
}

/*
 * Where the stack is that exec has built for @pid, as long as it is all that the
 * process has. Returns the number of its pages, 0 for none.
 */
static int temporary_stack(pid_t pid, char **addr)
{
	unsigned long start = 0, end = 0;
	char line[256];
	int nr = 0;
	FILE *f;

	snprintf(line, sizeof(line), "/proc/%d/maps", pid);
	f = fopen(line, "r");
	/* On x86 there is a page that belongs to nobody, too. */
	while (f && nr < 2 && fgets(line, sizeof(line), f))
		if (!strstr(line, "[vsyscall]") && !nr++ &&
		    sscanf(line, "%lx-%lx", &start, &end) != 2)
			end = start;
	if (f)
		fclose(f);
	*addr = (char *)start;
	return nr == 1 ? (end - start) / psize() : 0;
}

/* How many of the loops have a stack that exec is building at the moment. */
static int count_stacks(struct shared *sh, int nr_loops)
{
	int i, nr = 0;
	char *addr;
	pid_t pid;

	for (i = 0; i < nr_loops; i++) {
		pid = __atomic_load_n(&sh->loops[i].child, __ATOMIC_ACQUIRE);
		nr += pid && temporary_stack(pid, &addr);
	}
	return nr;
}

/* The same, of the first time that there are any. */
static int meet_stacks(struct shared *sh, int nr_loops)
{
	uint64_t start = cycles_clock();
	int nr;

	do
		nr = count_stacks(sh, nr_loops);
	while (!nr && ms_since(start) < MEET_MS && !stopped(sh));
	return nr;
}

/* Whether any of @nr pages was there, to be moved or not. */
static bool met_any(const int *status, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		if (status[i] != -EFAULT && status[i] != -ENOENT)
			return true;
	return false;
}

/*
 * The stacks that exec is building at the moment, to and fro. By the time of the
 * call one may be where it belongs, and nothing is left to be met. Returns how
 * many were.
 */
static int move_children(struct shared *sh, int nr_loops, int node)
{
	static void *pages[MAX_STACK_PAGES];
	static int nodes[MAX_STACK_PAGES], status[MAX_STACK_PAGES];
	int i, j, nr, met = 0;
	char *addr;
	pid_t pid;

	for (i = 0; i < nr_loops; i++) {
		pid = __atomic_load_n(&sh->loops[i].child, __ATOMIC_ACQUIRE);
		nr = pid ? temporary_stack(pid, &addr) : 0;
		if (nr > MAX_STACK_PAGES)
			nr = MAX_STACK_PAGES;
		for (j = 0; j < nr; j++) {
			pages[j] = addr + j * psize();
			nodes[j] = node;
			/* The kernel does not say which it could not move. */
			status[j] = -EBUSY;
		}
		met += nr && move_pages(pid, nr, pages, nodes, status,
					MPOL_MF_MOVE_ALL) >= 0 &&
		       met_any(status, nr);
	}
	return met;
}

static bool is_movable(long block)
{
	char path[96], zones[64];

	snprintf(path, sizeof(path),
		 "/sys/devices/system/memory/memory%ld/valid_zones", block);
	return !file_read(path, zones, sizeof(zones)) &&
	       !strncmp(zones, "Movable", 7);
}

/* The block after @block that is movable and online, or -1. */
static long next_block(long block)
{
	const char *dir = "/sys/devices/system/memory";
	long nr, next = -1, first = -1;
	struct dirent *entry;
	DIR *d = opendir(dir);

	while (d && (entry = readdir(d))) {
		if (sscanf(entry->d_name, "memory%ld", &nr) != 1 ||
		    !is_movable(nr))
			continue;
		if (first < 0 || nr < first)
			first = nr;
		if (nr > block && (next < 0 || nr < next))
			next = nr;
	}
	if (d)
		closedir(d);
	return next < 0 ? first : next;
}

/* The movable block that a page of the stack lies in, or -1. */
static long block_of_stack(pid_t pid, const char *addr, int nr)
{
	static uint64_t entries[MAX_STACK_PAGES];
	static uint64_t nr_pfns;
	uint64_t pfn, from = -1;
	char path[32];
	long block;
	ssize_t got;
	int i, fd;

	if (!nr_pfns)
		nr_pfns = block_bytes() > 0 ? block_bytes() / psize() : 1;
	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	got = pread(fd, entries, nr * sizeof(*entries),
		    (uintptr_t)addr / psize() * sizeof(*entries));
	close(fd);
	for (i = 0; i < got / (ssize_t)sizeof(*entries); i++) {
		if (!(entries[i] & ENTRY_PRESENT))
			continue;
		pfn = entries[i] & ENTRY_PFN;
		/* Most are in the block of the one before: do not ask again. */
		if (pfn >= from && pfn < from + nr_pfns)
			continue;
		block = block_of_pfn(pfn);
		if (block >= 0 && is_movable(block))
			return block;
		from = pfn / nr_pfns * nr_pfns;
	}
	return -1;
}

/* That of any stack that exec is building, or -1 if there is none for long. */
static long meet_block(struct shared *sh, int nr_loops)
{
	uint64_t start = cycles_clock();
	long block = -1;
	char *addr;
	pid_t pid;
	int i, nr;

	do {
		for (i = 0; i < nr_loops && block < 0; i++) {
			pid = __atomic_load_n(&sh->loops[i].child,
					      __ATOMIC_ACQUIRE);
			nr = pid ? temporary_stack(pid, &addr) : 0;
			if (nr)
				block = block_of_stack(pid, addr,
						       nr < MAX_STACK_PAGES ?
						       nr : MAX_STACK_PAGES);
		}
	} while (block < 0 && ms_since(start) < MEET_MS && !stopped(sh));
	return block;
}

/* @met is whether a stack lies in the block. */
static bool offline_and_online(struct shared *sh, int nr_loops, long *block,
			       int *met)
{
	long meets = meet_block(sh, nr_loops);
	bool done;

	*met = meets >= 0;
	*block = *met ? meets : next_block(*block);
	if (*block < 0)
		return false;
	done = !block_offline(*block);
	block_online(*block);
	return done;
}

static __noreturn void mover(FIXTURE_DATA(exec_temp_stack) * self,
			     enum trigger trigger, pid_t parent)
{
	struct shared *sh = self->shared;
	long block = -1;
	bool done = false;
	int met = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	while (!stopped(sh)) {
		switch (trigger) {
		case COMPACTION:
			met = meet_stacks(sh, self->nr_loops);
			done = compact();
			break;
		case MOVE_PAGES:
			met = move_children(sh, self->nr_loops,
					    self->nodes[sh->calls & 1]);
			done = met;
			break;
		case BLOCK_OFFLINE:
			done = offline_and_online(sh, self->nr_loops, &block,
						  &met);
			break;
		}
		__atomic_fetch_add(&sh->met, done ? met : 0, __ATOMIC_RELEASE);
		__atomic_fetch_add(&sh->calls, 1, __ATOMIC_RELEASE);
		__atomic_fetch_add(&sh->failed_calls, !done, __ATOMIC_RELEASE);
	}
	_exit(0);
}

/* Pages that were migrated, by anybody; -1 if the kernel does not say. */
static long pages_migrated(void)
{
	return vm_event("pgmigrate_success");
}

FIXTURE_SETUP(exec_temp_stack)
{
	struct rlimit limit = { .rlim_cur = STACK_LIMIT, .rlim_max = STACK_LIMIT };
	const char *why;
	int i, nr_cpus, cpus[CPU_SETSIZE];

	if (geteuid())
		SKIP(return, "needs root, to migrate the pages of others");
	/* The kernel of the variant before this one: others would only hang. */
	if (kernel_has_died())
		SKIP(return, "the kernel has died of something already: reboot");
	if (pages_migrated() < 0)
		SKIP(return, "needs CONFIG_VM_EVENT_COUNTERS and CONFIG_MIGRATION");
	if (variant->trigger == COMPACTION && !compact())
		SKIP(return, "needs CONFIG_COMPACTION");
	why = variant->trigger == MOVE_PAGES ? nodes_lack(self->nodes, 2, 0) :
					       NULL;
	if (why)
		SKIP(return, "%s", why);
	if (variant->trigger == BLOCK_OFFLINE) {
		if (!env_long("HUGETLB_PMD_MIGRATE_OFFLINE", 0))
			SKIP(return, "takes memory offline, unless HUGETLB_PMD_MIGRATE_OFFLINE=1");
		if (next_block(-1) < 0)
			SKIP(return, "needs movable memory that can go offline");
	}
	nr_cpus = cpu_list(cpus, ARRAY_SIZE(cpus));
	if (nr_cpus < 2)
		SKIP(return, "needs two CPUs");
	self->nr_loops = nr_cpus - 1 < MAX_LOOPS ? nr_cpus - 1 : MAX_LOOPS;
	/* It only moves what is new to it, where the others want CPU time. */
	if (variant->trigger == COMPACTION)
		self->nr_loops *= 2;

	/* Whatever the user has: too low a limit is E2BIG. */
	if (setrlimit(RLIMIT_STACK, &limit))
		SKIP(return, "needs a stack of %lu KiB: %s", STACK_LIMIT >> 10,
		     strerror(errno));

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* It waits for the last process: no more than there is need of it. */
	why = variant->trigger == BLOCK_OFFLINE ? guard_lacks() : rights_lack();
	if (why)
		SKIP(return, "%s", why);
	self->shared = share_memory(sizeof(*self->shared));
	ASSERT_NE(NULL, self->shared);
	for (i = 0; i < NR_ARGS + NR_ENV; i++) {
		self->strings[i] = malloc(STRING_BYTES);
		ASSERT_NE(NULL, self->strings[i]);
		memset(self->strings[i], letter(i), STRING_BYTES - 1);
		self->strings[i][STRING_BYTES - 1] = '\0';
	}
}

FIXTURE_TEARDOWN(exec_temp_stack)
{
	/*
	 * Without waiting for them: one that is stuck in the kernel stays. All
	 * die with who forked them, so none is killed by a number that may be
	 * another's by now.
	 */
	if (self->shared)
		__atomic_store_n(&self->shared->stop, 1, __ATOMIC_RELEASE);
	if (self->left)
		guard_leave();
	else
		guard_stop();
}

/*
 * A program that is on its way when time is over has as long as any other to
 * come to its end: the loop that has started it sees to that.
 */
static void wait_for_loops(struct shared *sh, const pid_t *pids, int nr)
{
	uint64_t start = cycles_clock();
	unsigned long user, system;
	char state;
	int i;

	for (i = 0; i < nr; i++) {
		struct loop *loop = &sh->loops[i];

		while (!waitpid(pids[i], NULL, WNOHANG)) {
			if (is_set(&loop->stuck) || is_set(&loop->slow))
				break;
			if (ms_since(start) > RUNNABLE_MS + 5000) {
				set(find_state(pids[i], &state, &user,
					       &system) && state == 'D' ?
				    &loop->stuck : &loop->slow);
				break;
			}
			usleep(20 * 1000);
		}
	}
}

/* What is wrong with who migrates: WAIT for nothing. */
static enum verdict wait_for_mover(pid_t pid, bool *failed)
{
	struct patience patience = { .began = cycles_clock(), .ms = MOVER_MS };
	enum verdict verdict = WAIT;
	int status = 0;

	while (verdict == WAIT && !waitpid(pid, &status, WNOHANG)) {
		usleep(20 * 1000);
		verdict = look_at(&patience, pid);
	}
	*failed = status;
	if (verdict != WAIT) {
		ksft_print_msg("who migrates does not end: pid %d\n", pid);
		tell_where(pid);
	} else if (status) {
		ksft_print_msg("who migrates ended with status 0x%x\n", status);
	}
	return verdict;
}

static bool is_enough(uint64_t began, const struct shared *sh, long migrated)
{
	long seconds = env_count("EXEC_TEMP_STACK_SECONDS", SECONDS);

	if (migrated < MIN_MIGRATIONS ||
	    __atomic_load_n(&sh->met, __ATOMIC_ACQUIRE) < MIN_MET)
		seconds += MORE_SECONDS;
	return ms_since(began) >
	       1000 * (seconds < MAX_SECONDS ? seconds : MAX_SECONDS);
}

TEST_F_TIMEOUT(exec_temp_stack, exec, 120)
{
	long migrated = pages_migrated(), execs = 0, wrong = 0, slow = 0;
	struct shared *sh = self->shared;
	uint64_t began = cycles_clock();
	pid_t parent = getpid(), pid, pids[2 * MAX_LOOPS];
	long first_ms = 0, fewest = LONG_MAX;
	bool died = false, over = false, failed = false;
	enum verdict mover_is = WAIT;
	int i, error = 0;

	for (i = 0; i < self->nr_loops; i++) {
		pid = fork();
		ASSERT_GE(pid, 0);
		if (!pid)
			exec_loop(sh, &sh->loops[i], self->strings, parent);
		pids[i] = pid;
	}
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid)
		mover(self, variant->trigger, parent);
	self->mover = pid;

	while (!wrong && !slow && !died && !over &&
	       !is_enough(began, sh, pages_migrated() - migrated)) {
		usleep(20 * 1000);
		for (i = 0; i < self->nr_loops; i++) {
			wrong += is_set(&sh->loops[i].wrong) ||
				 is_set(&sh->loops[i].stuck);
			slow += is_set(&sh->loops[i].slow);
			over |= is_set(&sh->loops[i].over);
		}
		died = kernel_has_died();
		if (wrong || died)
			first_ms = ms_since(began);
	}
	__atomic_store_n(&sh->stop, 1, __ATOMIC_RELEASE);
	if (!died && !wrong) {
		wait_for_loops(sh, pids, self->nr_loops);
		mover_is = wait_for_mover(self->mover, &failed);
	}
	for (i = 0, wrong = 0, slow = 0; i < self->nr_loops; i++) {
		struct loop *loop = &sh->loops[i];
		long nr;

		wrong += is_set(&loop->wrong) || is_set(&loop->stuck);
		slow += is_set(&loop->slow);
		nr = __atomic_load_n(&loop->execs, __ATOMIC_ACQUIRE);
		execs += nr;
		fewest = nr < fewest ? nr : fewest;
		error = loop->error ? loop->error : error;
		if (loop->stuck || loop->slow) {
			pid = loop->child ? loop->child : pids[i];
			ksft_print_msg("a program does not end: pid %d%s\n",
				       pid, loop->stuck ? "" :
				       ", which may have had no CPU");
			tell_where(pid);
		} else if (loop->wrong) {
			ksft_print_msg("a program ended with %s %d\n",
				       WIFSIGNALED(loop->status) ? "signal" :
				       "status", WIFSIGNALED(loop->status) ?
				       WTERMSIG(loop->status) :
				       WEXITSTATUS(loop->status));
		}
	}
	set(&sh->told);
	wrong += failed || mover_is == STUCK;
	slow += mover_is == SLOW;
	if (died || kernel_has_died()) {
		ksft_print_msg("the kernel has died of something: see its log\n");
		wrong += !wrong;
	}
	if (wrong && !first_ms)
		first_ms = ms_since(began);
	migrated = pages_migrated() - migrated;

	ksft_print_msg("exec_temp_stack: trigger=%s sharers=1 control=no calls=%ld",
		       trigger_name[variant->trigger], sh->calls);
	printf(" failed_calls=%ld execs=%ld migrations=%ld lost_migrations=%ld",
	       sh->failed_calls, execs, sh->met, wrong);
	printf(" first_ms=%ld system_migrated=%ld\n", first_ms, migrated);

	self->left = wrong || slow;
	EXPECT_EQ(0, wrong)
		TH_LOG("after %ld execs and %ld stacks met, in %ld ms", execs,
		       sh->met, first_ms);
	if (wrong)
		return;
	if (over)
		SKIP(return, "inconclusive: a program could not be started: %s",
		     strerror(error));
	if (slow)
		SKIP(return, "inconclusive: %ld processes did not end, and may have had no CPU",
		     slow);
	if (sh->met < MIN_MET)
		SKIP(return, "inconclusive: %ld calls met %ld stacks that exec was building",
		     sh->calls, sh->met);
	if (fewest < MIN_EXECS || migrated < MIN_MIGRATIONS)
		SKIP(return, "inconclusive: %ld execs by the slowest, %ld pages migrated%s%s",
		     fewest, migrated, error ? ", " : "",
		     error ? strerror(error) : "");
}

TEST_HARNESS_MAIN
