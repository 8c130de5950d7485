// SPDX-License-Identifier: GPL-2.0
/*
 * Writers of a file that is no huge page, and whoever copies it behind their
 * backs: what is found missing, who wrote meanwhile, and what is left behind.
 *
 *	writers_main keep		stop them, and compare
 *	writers_main lose		put an old copy of one journal back
 *	writers_main rest		one of them is stopped during the call
 *	writers_main begun		one had begun before, and ends
 *	writers_main threads		threads, and /proc/self/mem
 *	writers_main die		one of them is killed
 *	writers_main small		a page for each
 *	writers_main room		address space for as many mappings
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate_journal.h"
#include "migrate_page.h"
#include "migrate_writers.h"

#define NR_PAGES	3
#define NR		3

static int file;

static int map(const struct memory *mem, char *addr)
{
	return mmap(addr, NR * NR_PAGES * mem->page, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED ? errno : 0;
}

static void unmap(const struct memory *mem, char *addr)
{
	munmap(addr, NR * NR_PAGES * mem->page);
}

static void told(const struct lost_write *lost, void *arg)
{
	if (*(int *)arg)
		return;
	*(int *)arg = 1;
	printf("first: writer %d page %d\n", lost->writer, lost->page);
}

/* Stop a writer. Only once it has stopped does it write no more. */
static bool stop(pid_t pid)
{
	int status;

	return !kill(pid, SIGSTOP) && waitpid(pid, &status, WUNTRACED) == pid &&
	       WIFSTOPPED(status);
}

/*
 * All of them but that of the number `rests` have written, as writers_wrote()
 * asks. With other work on their CPU that may take any time.
 */
static void wait_for_writes(const struct writers *w, const uint64_t *then,
			    int rests)
{
	int i;

	for (i = 0; i < w->nr; i++)
		while (i != rests &&
		       __atomic_load_n(&w->each[i].now, __ATOMIC_ACQUIRE) <
		       then[i] + 2)
			usleep(1000);
}

static bool is(const char *what, char **argv)
{
	return !strcmp(argv[1], what);
}

int main(int argc, char **argv)
{
	struct memory mem = {
		.map = map, .unmap = unmap, .page = pmd_size(),
		.nr_pages = NR_PAGES,
	};
	struct writers w = { .mem = &mem, .nr = NR };
	struct rlimit limit = { 110ul << 30, 110ul << 30 };
	int cpus[] = { 0, 0 }, fd = -1, once = 0;
	uint64_t then[MAX_WRITERS], old[JOURNAL_WORDS];
	static struct writer each[NR];
	long lost_in[NR_PAGES] = {}, lost;
	bool threads;
	char *view;

	if (argc != 2)
		return 2;
	threads = is("threads", argv);
	if (is("small", argv))
		mem.page = 4096;
	if (is("room", argv)) {
		setrlimit(RLIMIT_AS, &limit);
		if (writers_reserve(&w, NR))
			printf("rooms %d\n", w.rooms);
		limit.rlim_cur = 10ul << 30;
		setrlimit(RLIMIT_AS, &limit);
		if (!writers_reserve(&w, NR))
			printf("none: %s\n", strerror(errno));
		return 0;
	}
	if (is("begun", argv)) {
		w.each = each;
		writers_note(&w, then);
		each[0].now++;
		each[1].now += 2;
		printf("wrote %d\n", writers_wrote(&w, then));
		return 0;
	}
	file = syscall(SYS_memfd_create, "file", 0);
	if (ftruncate(file, NR * NR_PAGES * pmd_size()))
		return 2;
	if (threads) {
		mem.map = NULL;
		mem.there = mmap(NULL, NR_PAGES * pmd_size(),
				 PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		view = mem.there;
		fd = open("/proc/self/mem", O_RDWR);
		if (writers_thread(&w, cpus, 2))
			return 2;
	} else {
		if (!writers_reserve(&w, NR) || writers_fork(&w, cpus, 2))
			return 2;
		view = writers_view_addr(&w);
	}
	if (!writers_order(&w, WRITE, 0))
		return 2;
	if (!threads && map(&mem, view))
		return 2;
	memcpy(old, view + writers_offset(&w, 1, 2), sizeof(old));
	if (is("rest", argv) && !stop(w.each[1].pid))
		return 2;
	writers_note(&w, then);
	wait_for_writes(&w, then, is("rest", argv) ? 1 : -1);
	printf("wrote %d\n", writers_wrote(&w, then));
	if (is("rest", argv))
		kill(w.each[1].pid, SIGCONT);
	if (is("die", argv))
		kill(w.each[0].pid, SIGKILL);
	if (!writers_order(&w, STOP, 0)) {
		writers_kill(&w);
		return 3;
	}
	if (is("lose", argv))
		memcpy(view + writers_offset(&w, 1, 2), old, sizeof(old));
	lost = writers_check(&w, view, fd, told, &once, lost_in);
	printf("lost %d in %d %d %d\n", lost > 0 ? 1 : (int)lost,
	       lost_in[0] > 0, lost_in[1] > 0, lost_in[2] > 0);
	memset(lost_in, 0, sizeof(lost_in));
	printf("then %ld\n", writers_check(&w, view, fd, NULL, NULL, lost_in));
	if (!threads)
		writers_kill(&w);
	return 0;
}
