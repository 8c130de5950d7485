// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "migrate_crew.h"
#include "migrate_guard.h"
#include "migrate_race.h"

struct words {
	uint32_t stop;
	int error;
	long oom_kills;		/* of the kernel, before it began */
};

static struct words own, *words = &own;

void *race_begin(size_t size)
{
	struct words *new = share_memory(sizeof(*new));

	if (!new)
		return NULL;
	words = new;
	words->oom_kills = vm_event("oom_kill");
	return share_memory(size);
}

void race_stop(void)
{
	set_and_wake(&words->stop, 1);
}

bool stopped(void)
{
	return __atomic_load_n(&words->stop, __ATOMIC_ACQUIRE);
}

void give_up(int error)
{
	crew_give_up(&words->error, error);
}

void be_nobody(void)
{
	int error = crew_nobody();

	if (error)
		give_up(error);
}

/*
 * To change the protection of a mapping, i_mmap_rwsem is held while all of its page
 * table is walked.
 */
void hold_main(int fd, char *addr, size_t len, off_t offset,
	       unsigned long *held)
{
	if (mmap(addr, len, PROT_READ, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
		 fd, offset) == MAP_FAILED)
		give_up(errno);
	/* The table is there from now on. */
	__atomic_load_n(addr, __ATOMIC_RELAXED);
	while (!stopped()) {
		if (mprotect(addr, len, PROT_READ | PROT_WRITE) ||
		    mprotect(addr, len, PROT_READ))
			give_up(errno);
		count_up(held, 2);
	}
	_exit(0);
}

void race_run(struct race *race)
{
	uint64_t start = cycles_clock();
	unsigned long last = 0, now;

	race->since = start;
	while (!race->ended && ms_since(race->since) < race->stuck_ms &&
	       (ms_since(start) < race->seconds * 1000 ||
		(race->met && counted(race->met) < race->enough &&
		 ms_since(start) < race->max_seconds * 1000))) {
		usleep(10 * 1000);
		now = counted(race->steps);
		if (now != last)
			race->since = cycles_clock();
		last = now;
		race->ended = crew_ended(race->crew);
	}
	/* Stuck is who does not end: no step for long may be a busy machine. */
	race_stop();
	race->stuck = !crew_wait(race->crew, race->stuck_ms);
}

int race_error(void)
{
	return words->error;
}

bool race_oom_killed(int killed)
{
	return !words->error && killed &&
	       vm_event("oom_kill") > words->oom_kills;
}

const char *race_failed(const struct crew *crew, bool ended)
{
	static char why[96];

	snprintf(why, sizeof(why), "a call failed: %s", strerror(words->error));
	if (words->error)
		return why;
	return ended || crew_failed(crew) ? "a process died" : NULL;
}

const char *race_end(struct crew *crew, bool stuck, int fd, int ms)
{
	if (!crew_kill(crew, stuck ? 0 : ms))
		stuck = true;
	if (fd >= 0)
		close(fd);
	/* The guardian must not wait for those who are stuck. */
	return guard_end(!stuck);
}
