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
 * or that does not end, is a failure.
 *
 * Environment:
 *	EXEC_TEMP_STACK_SECONDS=n	how long a variant runs
 *	HUGETLB_PMD_MIGRATE_OFFLINE=1	also take memory offline
 */
#include "kselftest_harness.h"

#include <dirent.h>
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

#include "migrate_util.h"
#include "vm_util.h"

#define MARKER		"exec_temp_stack: program"
/* Arguments of 100 KiB: 12 and 4 in the environment, of 2 MiB that may be. */
#define STRING_BYTES	(100 << 10)
#define NR_ARGS		12
#define NR_ENV		4
#define MAX_LOOPS	3
#define SECONDS		10
#define MORE_SECONDS	50	/* where these bring too few migrations */
#define MIN_MIGRATIONS	100	/* fewer are no evidence */
#define MIN_EXECS	10	/* of each loop: so are fewer of these */
/* A new stack may have a quarter of that; 2 MiB are wanted, and some room. */
#define STACK_LIMIT	(16ul << 20)
#define EXEC_FAILED	16	/* exit status: and the error number, up to 127 */
#define STUCK_SECONDS	10
#define MOVER_SECONDS	30	/* memory takes its time to go offline */
#define MAX_STACK_PAGES	1024

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
};

struct shared {
	uint32_t stop;
	long calls;		/* of the trigger */
	long failed_calls;
	struct loop loops[2 * MAX_LOOPS];
};

FIXTURE(exec_temp_stack)
{
	struct shared *shared;
	int nr_loops;
	int nodes[2];
	char *strings[NR_ARGS + NR_ENV];
	pid_t mover;
	bool wrong;		/* something may be stuck for good */
};

FIXTURE_VARIANT(exec_temp_stack)
{
	enum trigger trigger;
};

FIXTURE_VARIANT_ADD(exec_temp_stack, compaction) { COMPACTION };
/*
 * Not migrate_pages(2): up to 6.6 it holds the lock of the mm all the time, which
 * exec wants for the move.
 */
FIXTURE_VARIANT_ADD(exec_temp_stack, move_pages) { MOVE_PAGES };
FIXTURE_VARIANT_ADD(exec_temp_stack, block_offline) { BLOCK_OFFLINE };

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

/* Returns whether the child came to its end in time. SIGCHLD is blocked. */
static bool wait_for(struct loop *loop, const sigset_t *sigchld, int *status)
{
	const struct timespec tick = { .tv_sec = 1 };
	uint64_t limit = cycles_clock() + STUCK_SECONDS * 1000000000ull;

	while (waitpid(loop->child, status, WNOHANG) != loop->child) {
		if (cycles_clock() > limit)
			return false;
		sigtimedwait(sigchld, NULL, &tick);
	}
	return true;
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
		__atomic_store_n(&loop->over, true, __ATOMIC_RELEASE);
		_exit(0);
	}
	usleep(10 * 1000);
}

static __noreturn void exec_loop(struct shared *sh, struct loop *loop,
				 char **strings, pid_t parent)
{
	long kills = oom_kills();
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
		if (!wait_for(loop, &sigchld, &loop->status)) {
			__atomic_store_n(&loop->stuck, true, __ATOMIC_RELEASE);
			_exit(0);
		}
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
			__atomic_store_n(&loop->wrong, true, __ATOMIC_RELEASE);
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
 * call one may be where it belongs, and nothing is left to be met.
 */
static bool move_children(struct shared *sh, int nr_loops, int node)
{
	static void *pages[MAX_STACK_PAGES];
	static int nodes[MAX_STACK_PAGES], status[MAX_STACK_PAGES];
	bool any = false;
	char *addr;
	pid_t pid;
	int i, j, nr;

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
		if (nr && move_pages(pid, nr, pages, nodes, status,
				     MPOL_MF_MOVE_ALL) >= 0 &&
		    met_any(status, nr))
			any = true;
	}
	return any;
}

/* The block after @block that is movable and online, or -1. */
static long next_block(long block)
{
	const char *dir = "/sys/devices/system/memory";
	long nr, next = -1, first = -1;
	struct dirent *entry;
	char path[300], zones[64];
	DIR *d = opendir(dir);

	while (d && (entry = readdir(d))) {
		if (sscanf(entry->d_name, "memory%ld", &nr) != 1)
			continue;
		snprintf(path, sizeof(path), "%s/%s/valid_zones", dir,
			 entry->d_name);
		if (file_read(path, zones, sizeof(zones)) ||
		    strncmp(zones, "Movable", 7))
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

static bool offline_and_online(long *block)
{
	bool done;

	*block = next_block(*block);
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

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	while (!stopped(sh)) {
		switch (trigger) {
		case COMPACTION:
			done = compact();
			break;
		case MOVE_PAGES:
			done = move_children(sh, self->nr_loops,
					     self->nodes[sh->calls & 1]);
			break;
		case BLOCK_OFFLINE:
			done = offline_and_online(&block);
			break;
		}
		__atomic_fetch_add(&sh->calls, 1, __ATOMIC_RELEASE);
		__atomic_fetch_add(&sh->failed_calls, !done, __ATOMIC_RELEASE);
	}
	_exit(0);
}

/* Pages that were migrated since the kernel started, or -1 if it does not say. */
static long pages_migrated(void)
{
	return vm_event("pgmigrate_success");
}

FIXTURE_SETUP(exec_temp_stack)
{
	struct rlimit limit = { STACK_LIMIT, STACK_LIMIT };
	const char *why;
	cpu_set_t allowed;
	int i, nr_cpus;

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
	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		CPU_ZERO(&allowed);
	nr_cpus = CPU_COUNT(&allowed);
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
	if (self->wrong)
		guard_leave();
	else
		guard_stop();
}

static bool is_set(const bool *flag)
{
	return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

/*
 * A program that is on its way when time is over has as long as any other to
 * come to its end. Returns whether all did, and as they should.
 */
static bool wait_for_loops(struct shared *sh, const pid_t *pids, int nr)
{
	uint64_t limit = cycles_clock() + (STUCK_SECONDS + 5) * 1000000000ull;
	bool good = true;
	int i;

	for (i = 0; i < nr; i++) {
		struct loop *loop = &sh->loops[i];

		while (!waitpid(pids[i], NULL, WNOHANG)) {
			if (cycles_clock() > limit) {
				__atomic_store_n(&loop->stuck, true,
						 __ATOMIC_RELEASE);
				break;
			}
			usleep(20 * 1000);
		}
		good &= !is_set(&loop->wrong) && !is_set(&loop->stuck);
	}
	return good;
}

/* Whether who migrates comes to his end, and as he should. */
static bool wait_for_mover(pid_t pid)
{
	uint64_t limit = cycles_clock() + MOVER_SECONDS * 1000000000ull;
	int status = 0;

	while (!waitpid(pid, &status, WNOHANG)) {
		if (cycles_clock() > limit) {
			ksft_print_msg("who migrates does not end: pid %d\n",
				       pid);
			return false;
		}
		usleep(20 * 1000);
	}
	if (status)
		ksft_print_msg("who migrates ended with status 0x%x\n", status);
	return !status;
}

static bool is_enough(uint64_t began, long migrated)
{
	uint64_t seconds = env_count("EXEC_TEMP_STACK_SECONDS", SECONDS);

	if (migrated < MIN_MIGRATIONS)
		seconds += MORE_SECONDS;
	return cycles_clock() - began > seconds * 1000000000ull;
}

TEST_F_TIMEOUT(exec_temp_stack, exec, 120)
{
	long migrated = pages_migrated(), execs = 0, wrong = 0;
	struct shared *sh = self->shared;
	uint64_t began = cycles_clock();
	pid_t parent = getpid(), pid, pids[2 * MAX_LOOPS];
	long first_ms = 0;
	bool died = false, over = false, mover_ended = true;
	long fewest = LONG_MAX;
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

	while (!wrong && !died && !over &&
	       !is_enough(began, pages_migrated() - migrated)) {
		usleep(20 * 1000);
		for (i = 0; i < self->nr_loops; i++) {
			wrong += is_set(&sh->loops[i].wrong) ||
				 is_set(&sh->loops[i].stuck);
			over |= is_set(&sh->loops[i].over);
		}
		died = kernel_has_died();
		if (wrong || died)
			first_ms = (cycles_clock() - began) / 1000000;
	}
	__atomic_store_n(&sh->stop, 1, __ATOMIC_RELEASE);
	if (!died && !wrong) {
		if (!wait_for_loops(sh, pids, self->nr_loops))
			first_ms = (cycles_clock() - began) / 1000000;
		mover_ended = wait_for_mover(self->mover);
	}
	for (i = 0, wrong = 0; i < self->nr_loops; i++) {
		struct loop *loop = &sh->loops[i];
		long nr;

		wrong += is_set(&loop->wrong) || is_set(&loop->stuck);
		nr = __atomic_load_n(&loop->execs, __ATOMIC_ACQUIRE);
		execs += nr;
		fewest = nr < fewest ? nr : fewest;
		error = loop->error ? loop->error : error;
		if (loop->stuck)
			ksft_print_msg("a program does not end: pid %d\n",
				       loop->child);
		else if (loop->wrong)
			ksft_print_msg("a program ended with %s %d\n",
				       WIFSIGNALED(loop->status) ? "signal" :
				       "status", WIFSIGNALED(loop->status) ?
				       WTERMSIG(loop->status) :
				       WEXITSTATUS(loop->status));
	}
	wrong += !mover_ended;
	if (died || kernel_has_died()) {
		ksft_print_msg("the kernel has died of something: see its log\n");
		wrong += !wrong;
	}
	migrated = pages_migrated() - migrated;

	ksft_print_msg("exec_temp_stack: trigger=%s sharers=1 control=no calls=%ld",
		       trigger_name[variant->trigger], sh->calls);
	printf(" failed_calls=%ld execs=%ld migrations=%ld lost_migrations=%ld",
	       sh->failed_calls, execs, migrated, wrong);
	printf(" first_ms=%ld\n", first_ms);

	self->wrong = wrong;
	EXPECT_EQ(0, wrong)
		TH_LOG("after %ld execs and %ld migrations, in %ld ms", execs,
		       migrated, first_ms);
	if (!wrong && over)
		SKIP(return, "inconclusive: a program could not be started: %s",
		     strerror(error));
	if (!wrong && variant->trigger == MOVE_PAGES &&
	    sh->calls - sh->failed_calls < MIN_EXECS)
		SKIP(return, "inconclusive: %ld of %ld calls met a stack that exec was building",
		     sh->calls - sh->failed_calls, sh->calls);
	if (!wrong && (fewest < MIN_EXECS || migrated < MIN_MIGRATIONS))
		SKIP(return, "inconclusive: %ld execs by the slowest, %ld pages migrated%s%s",
		     fewest, migrated, error ? ", " : "",
		     error ? strerror(error) : "");
}

TEST_HARNESS_MAIN
