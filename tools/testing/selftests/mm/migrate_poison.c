// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest.h"
#include "migrate_crew.h"
#include "migrate_memory.h"
#include "migrate_page.h"
#include "migrate_poison.h"
#include "vm_util.h"

#define KPAGEFLAGS	"/proc/kpageflags"
#define HWPOISON_BIT	19
#define UNPOISON_TRIES	100	/* of 1 ms, until nobody has a reference */

#define REFUSED		2	/* exit status of who cannot poison */

static bool poisons;

/* Returns an error number below zero where nobody can say. */
static int still_poisoned(int64_t pfn)
{
	int fd = open(KPAGEFLAGS, O_RDONLY);
	uint64_t flags;
	ssize_t got;

	if (fd < 0)
		return -errno;
	got = pread(fd, &flags, sizeof(flags), pfn * sizeof(flags));
	close(fd);
	return got == sizeof(flags) ? (flags >> HWPOISON_BIT) & 1 : -EIO;
}

const char *poisoned_lacks(void)
{
	static char why[96];
	int error = still_poisoned(0);

	snprintf(why, sizeof(why), "cannot read " KPAGEFLAGS ": %s",
		 strerror(-error));
	return error < 0 ? why : NULL;
}

void stay_alive(void)
{
	if (prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_LATE, 0, 0))
		give_up(errno);
}

static void sigbus(int sig)
{
	/* From 6.9 on, who poisons a page of his own is told so by SIGBUS. */
	if (!poisons)
		_exit(1);
}

/*
 * Poison a page, in a process of its own: it may be killed for it. Nothing else
 * kills it, so that the error was handled in any case.
 */
static __noreturn void poison_main(struct poison *poison, int fd, int page,
				   unsigned long begin)
{
	char *addr = mmap(NULL, pmd_size(), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_NORESERVE, fd, page * pmd_size());
	unsigned long begun, ended;
	int64_t pfn;
	int ret;

	if (addr == MAP_FAILED)
		give_up(errno);
	signal(SIGBUS, sigbus);
	__atomic_store_n(addr, 1, __ATOMIC_RELAXED);
	pfn = page_pfn(0, addr);
	if (pfn <= 0)
		give_up(-pfn);

	/* Each may be at the page before, and one may be faster than others. */
	begun = counted(&poison->begun);
	while (counted(&poison->begun) < begun + begin) {
		if (stopped())
			_exit(1);
		usleep(100);
	}
	begun = counted(&poison->begun);
	ended = counted(&poison->ended);
	/*
	 * One that had not ended by now meets the error, or one that comes. That
	 * is all that can be seen from here: with one CPU, it may be one that was
	 * preempted with no lock held, and then it has met nothing.
	 */
	poison->met_one = ended < begun;
	poison->pfn = pfn;
	__atomic_store_n(&poison->poisoner, getpid(), __ATOMIC_RELEASE);
	poisons = true;
	ret = madvise(addr, psize(), MADV_HWPOISON);
	/* Busy: it is poisoned, but was not taken from who maps it, or is in use. */
	if (ret && errno != EBUSY) {
		poison->refused = errno;
		poison->pfn = 0;
		_exit(REFUSED);
	}
	if (counted(&poison->begun) != begun)
		poison->met_one = true;
	_exit(0);
}

bool poison_page(struct poison *poison, int fd, int page, unsigned long begin)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		give_up(errno);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		poison_main(poison, fd, page, begin);
	}
	if (waitpid(pid, &status, 0) != pid)
		give_up(errno);
	__atomic_store_n(&poison->poisoner, 0, __ATOMIC_RELEASE);
	if (race_error())
		give_up(race_error());
	return !WIFEXITED(status) || WEXITSTATUS(status) != REFUSED;
}

/* Returns whether the page is as any other again, or is to be left. */
static bool take_back(const struct poison *poison, int fd, int page)
{
	int tries;

	/* Not as long as the file has the page. */
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      page * pmd_size(), pmd_size()))
		give_up(errno);
	if (poison->leave)
		return true;
	for (tries = 0; tries < UNPOISON_TRIES; tries++) {
		if (!pfn_unpoison(poison->pfn) &&
		    still_poisoned(poison->pfn) <= 0)
			return true;
		usleep(1000);
	}
	return false;
}

bool poison_take_back(struct poison *poison, int fd, int page)
{
	if (!poison->pfn)
		return true;
	count_up(&poison->errors, 1);
	if (poison->met_one)
		count_up(&poison->met, 1);
	if (!take_back(poison, fd, page)) {
		poison->kept_pfns[poison->kept] = poison->pfn;
		count_up(&poison->kept, 1);
	}
	poison->pfn = 0;
	poison->done = poison->kept == KEPT_MAX ||
		(poison->leave && poison->errors == poison->leave_max);
	return !poison->done;
}

static void take_back_late(int64_t pfn)
{
	int ret = pfn_unpoison(pfn), still = still_poisoned(pfn);

	if (still > 0 || (still < 0 && ret))
		ksft_print_msg("page frame %#llx stays poisoned: %s\n",
			       (unsigned long long)pfn,
			       ret ? strerror(-ret) : "and nobody says why");
}

void poison_end(const struct poison *poison)
{
	unsigned long i;

	if (poison->leave)
		return;
	if (poison->pfn)
		take_back_late(poison->pfn);
	for (i = 0; i < poison->kept; i++)
		take_back_late(poison->kept_pfns[i]);
}

void poison_tell(const struct poison *poison)
{
	pid_t pid = __atomic_load_n(&poison->poisoner, __ATOMIC_ACQUIRE);

	if (pid)
		tell_where(pid);
}
