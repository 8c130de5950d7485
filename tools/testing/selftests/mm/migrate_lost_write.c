// SPDX-License-Identifier: GPL-2.0
/*
 * Is any write lost while memory of any kind is migrated?
 *
 * Migration takes away every mapping of a page, copies the page, and maps the
 * copy. A CPU that still has the old mapping in its TLB, because nobody flushed
 * it in time, goes on writing to what was copied already:
 *
 *	CPU 0				CPU 1
 *	replace the mapping		writes 1 to the page
 *	(flush all TLBs)		writes 2
 *	copy the page			writes 3: to the old page, if not flushed
 *	map the copy			reads 2, some time later
 *
 * Since 6.3 the kernel takes away the mappings of many pages first, and flushes
 * once for all of them, so there is more than one place where that can be
 * forgotten. Here writers, one on each other CPU, store to pages all the time,
 * and from a journal in each page (see migrate_writers.h) it can be told of each
 * slot what it must hold. One round of the test is
 *
 *	write	until all are at it
 *	move	all pages to the other node, with one call
 *	stop	the writers, somewhat later
 *	compare	journals with the number of the last write, through a view that
 *		no TLB has seen
 *
 * What is written to:
 *
 *	anon		private memory; writers are threads. Base pages are
 *	anon_thp	written to by one of them each, huge pages by all
 *	anon_mthp	the same with huge pages of 64 KiB
 *	shmem		a memfd that writers, which are processes, map anew
 *	shmem_mthp	in each round
 *	shmem_thp
 *	file		the same with a file in the directory that it is run in, or,
 *	file_thp	if that is in memory itself, of a file system in a loop
 *			device. Not all of them have huge pages
 *
 * What moves them: move_pages(2), mbind(2), migrate_pages(2) by the test itself or
 * by a process that does not have the memory, a cgroup whose nodes change (of
 * version 2 or 1), DAMON, which is told to migrate these page frames, and NUMA
 * balancing, which moves a page to the node of those who use it, one by one. The
 * last takes write access away long before it moves a page: only who has got it
 * back by then, as another process of a file or another thread of a page of 64 KiB
 * may, can lose anything. On a machine with slower memory, reclaim demotes pages
 * to it, and NUMA balancing, in another mode, promotes those that are in use.
 *
 * Nobody says where to if memory is compacted, taken offline by the block, or
 * soft-offlined by the page. There a page has moved if it is in another frame.
 * Compaction moves pages from the low end of a zone to holes at its high end, so
 * before each call ours are taken to low frames, and holes are made above them. It
 * leaves pages alone that are as large as a PMD maps, and soft offlining splits
 * huge pages before it moves them.
 *
 * alloc_contig_range() (CMA, virtio-mem, gigantic pages) and long-term pins, which
 * take pages out of ZONE_MOVABLE and CMA, call the same migrate_pages(). The way
 * there was not tried with these kinds of memory: hugetlb_pmd_contig tries the
 * first with hugetlb pages. Of compaction, only what /sys asks for was tried, and
 * not that of page faults and of kcompactd, which do not wait for pages as it does.
 *
 * The parts of huge pages that no journal lies in have contents of their own,
 * which nobody writes to: they must still be there.
 *
 * A call counts if it moved pages, and if each writer wrote to all of its pages
 * at least once meanwhile.
 *
 * Environment:
 *	MIGRATE_LOST_WRITE_CALLS=n	rounds a test
 *	MIGRATE_LOST_WRITE_SEED=n	for the random delays
 *	HUGETLB_PMD_MIGRATE_OFFLINE=1	also take memory offline, and soft-offline
 *					pages, whose poison is taken back
 */
#include "kselftest_harness.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>

#include "migrate_guard.h"
#include "migrate_journal.h"
#include "migrate_memory.h"
#include "migrate_mount.h"
#include "migrate_page.h"
#include "migrate_util.h"
#include "migrate_writers.h"
#include "vm_util.h"

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif
#ifndef MPOL_F_NUMA_BALANCING
#define MPOL_F_NUMA_BALANCING	0x2000
#endif

#define CALLS		3
#define MIN_MOVES	3	/* fewer are no evidence */
#define TEST_MS		20000	/* no call begins later */
#define EXAMPLES	3
#define NR_HUGE		4	/* pages for all writers */
#define NR_SMALL	16	/* those of 64 KiB */
#define SMALL		(64 << 10)
#define NR_BASE		32	/* pages for each */
#define PAGE_IS_FREE	0x400	/* in /proc/kpageflags */
#define PAGE_IS_HEAD	0x8000
#define PAGE_IS_TAIL	0x10000
#define PATTERN		0x5a00000000000000ull	/* no word of a journal */
#define DISK_BYTES	(64l << 20)
#define THP_DIR		"/sys/kernel/mm/transparent_hugepage/"
#define DAMON		"/sys/kernel/mm/damon/admin/kdamonds/"
#define CONTEXT		"0/contexts/0/"
#define SCHEME		CONTEXT "schemes/0/"
#define REGIONS		CONTEXT "targets/0/regions/"
#define DAMON_MS	500	/* for it to move all pages */
#define V1		"v1"	/* cpuset is to go back to version 2 */
#define TIERS		"/sys/devices/virtual/memory_tiering"
#define DEMOTION	"/sys/kernel/mm/numa/demotion_enabled"
#define BALANCING	"/proc/sys/kernel/numa_balancing"
#define DEMOTION_MS	500	/* for reclaim to find all pages idle */
#define BALANCE_MIB	64	/* for a walk to come by all pages */
#define BALANCE_MS	1000	/* for it to move a page */
#define NODES		"/sys/devices/system/node/"
#define SCRATCH_MAX	(512l << 20)	/* memory that has holes */
#define PARTS		3	/* of it */
#define SPARE		4096	/* pages of each part that no CPU keeps */
#define BELOW		1024	/* pages of it below ours */
#define HOLE		256	/* pages: half a pageblock */
#define LOOKS		100	/* at statistics, for a CPU to keep less */
#define SOFT_PAGES	8	/* a call */

enum kind { ANON, SHMEM, A_FILE };
enum size { BASE, SMALL_HUGE, HUGE };

static const char * const kind_name[] = { "anon", "shmem", "file" };
static const char * const size_name[] = { "", "_mthp", "_thp" };

struct state {
	struct memory memory;	/* first: see state_of() */
	struct writers writers;
	enum kind kind;
	enum size pages;
	size_t size;		/* of the memory */
	int nr_pages;		/* of all writers */
	bool *journals;		/* of which blocks, each as large as one */
	int fd;			/* of the file */
	int self;		/* /proc/self/mem, for private memory */
	int root, group;	/* the directories of all cgroups, and of its own */
	pid_t reaper;		/* who removes that, when this pipe is closed */
	int reap;
	char *own;		/* the mapping of who moves */
	char *scratch;		/* what compaction finds holes in, or NULL */
	size_t scratch_size;
	int low;		/* pages that were below it, at last */
	long holes;		/* frames of it that were free then */
	int nodes[2];
	unsigned int seed;
};

FIXTURE(migrate_lost_write)
{
	struct state state;
};

FIXTURE_VARIANT(migrate_lost_write)
{
	enum kind kind;
	enum size pages;
};

FIXTURE_VARIANT_ADD(migrate_lost_write, anon) { .kind = ANON };
FIXTURE_VARIANT_ADD(migrate_lost_write, anon_mthp) {
	.kind = ANON, .pages = SMALL_HUGE };
FIXTURE_VARIANT_ADD(migrate_lost_write, anon_thp) {
	.kind = ANON, .pages = HUGE };
FIXTURE_VARIANT_ADD(migrate_lost_write, shmem) { .kind = SHMEM };
FIXTURE_VARIANT_ADD(migrate_lost_write, shmem_mthp) {
	.kind = SHMEM, .pages = SMALL_HUGE };
FIXTURE_VARIANT_ADD(migrate_lost_write, shmem_thp) {
	.kind = SHMEM, .pages = HUGE };
FIXTURE_VARIANT_ADD(migrate_lost_write, file) { .kind = A_FILE };
FIXTURE_VARIANT_ADD(migrate_lost_write, file_thp) {
	.kind = A_FILE, .pages = HUGE };

/* Memory. */

static int map_at(const struct state *st, char *addr, int fd)
{
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;

	if (mmap(addr, st->size, PROT_READ | PROT_WRITE, MAP_FIXED | flags, fd,
		 0) == MAP_FAILED)
		return errno;
	return madvise(addr, st->size,
		       st->pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) &&
	       st->pages ? errno : 0;
}

static int map_file(const struct memory *mem, char *addr)
{
	const struct state *st = (const struct state *)mem;

	return map_at(st, addr, st->fd);
}

static void unmap_file(const struct memory *mem, char *addr)
{
	unmap_pud(addr);
}

/* Is what @pfn begins, of @nr page frames, one page? It may be part of a larger. */
static bool is_compound(int fd, int64_t pfn, size_t nr)
{
	uint64_t flags[512];
	size_t i, some, done;

	for (done = 0; done < nr; done += some) {
		some = nr - done < ARRAY_SIZE(flags) ? nr - done :
						       ARRAY_SIZE(flags);
		if (pread(fd, flags, some * sizeof(*flags),
			  (pfn + done) * sizeof(*flags)) !=
		    (ssize_t)(some * sizeof(*flags)))
			return false;
		for (i = 0; i < some; i++)
			if (!(flags[i] & (done + i ? PAGE_IS_TAIL :
						     PAGE_IS_HEAD)))
				return false;
	}
	return true;
}

/* Is each of the pages a single one, for the kernel too? */
static bool is_huge(const struct state *st)
{
	int i, fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	size_t size = st->memory.page;
	bool huge = fd >= 0;
	int64_t pfn;

	for (i = 0; huge && i < st->nr_pages; i++) {
		/* Migration may have left it to be mapped again. */
		__atomic_load_n(st->own + i * size, __ATOMIC_RELAXED);
		pfn = page_pfn(0, st->own + i * size);
		huge = pfn > 0 && !(pfn % (size / psize())) &&
		       is_compound(fd, pfn, size / psize());
	}
	if (fd >= 0)
		close(fd);
	return huge;
}

static const char *not_huge(const struct state *st)
{
	static char why[160];

	if (access("/proc/kpageflags", R_OK))
		return "needs CONFIG_PROC_PAGE_MONITOR";
	snprintf(why, sizeof(why),
		 "no huge page of %zu KiB to be had: free some memory, or compact it%s",
		 st->memory.page >> 10, st->kind == A_FILE ?
		 "; many file systems have none" : "");
	return why;
}

/* What a word is at first. */
static uint64_t first_word(const struct state *st, size_t offset)
{
	return st->journals[offset / JOURNAL_BYTES] ? 0 :
	       PATTERN | offset / sizeof(uint64_t);
}

/*
 * Have pages: one that nobody has written to has no memory of its own. A file
 * system that has huge pages has them for large writes. Returns 0 or -errno.
 */
static int fill(const struct state *st)
{
	size_t size = st->memory.page, page, off;
	uint64_t *words = malloc(size);
	int error = words ? 0 : ENOMEM;

	for (page = 0; !error && page < st->size; page += size) {
		for (off = 0; off < size; off += sizeof(*words))
			words[off / sizeof(*words)] =
				first_word(st, page + off);
		if (st->kind == A_FILE)
			error = pwrite(st->fd, words, size, page) ==
				(ssize_t)size ? 0 : errno ?: EIO;
		if (!error)
			memcpy(st->own + page, words, size);
	}
	free(words);
	return -error;
}

/*
 * Pages of 64 KiB that did not move at once may have been split, to be moved as
 * small ones. Have new ones with the same contents.
 */
static void renew(const struct state *st)
{
	char *copy = malloc(st->size);

	if (!copy)
		return;
	memcpy(copy, st->own, st->size);
	madvise(st->own, st->size,
		st->kind == ANON ? MADV_DONTNEED : MADV_REMOVE);
	memcpy(st->own, copy, st->size);
	free(copy);
}

/* Have huge pages for who asks for them. The guardian restores the setting. */
static bool allow_huge(const char *path, const char *value)
{
	char line[96], *old, *end;

	if (file_read(path, line, sizeof(line)))
		return false;
	/* It is in brackets: always [madvise] never */
	old = strchr(line, '[');
	end = old ? strchr(old, ']') : NULL;
	if (!end)
		return false;
	*end = 0;
	return !guard_undo(path, old + 1) && !file_write(path, value);
}

/* The size that is wanted. Returns NULL, or a line that says why there is none. */
static const char *huge_lacks(const struct state *st)
{
	if (st->pages == SMALL_HUGE &&
	    (psize() >= SMALL ||
	     !allow_huge(st->kind == ANON ? THP_DIR "hugepages-64kB/enabled" :
			 THP_DIR "hugepages-64kB/shmem_enabled",
			 st->kind == ANON ? "madvise" : "advise")))
		return st->kind == ANON ?
		       "needs huge pages of 64 KiB (since 6.8)" :
		       "needs huge pages of 64 KiB of shmem (since 6.11)";
	if (st->pages == HUGE && st->kind == A_FILE &&
	    access(THP_DIR "enabled", F_OK))
		return "needs CONFIG_TRANSPARENT_HUGEPAGE";
	if (st->pages == HUGE && st->kind != A_FILE &&
	    !allow_huge(st->kind == ANON ? THP_DIR "enabled" :
			THP_DIR "shmem_enabled",
			st->kind == ANON ? "madvise" : "advise"))
		return "needs CONFIG_TRANSPARENT_HUGEPAGE, and of shmem (since 4.8)";
	return NULL;
}

/* A loop device that has memory for a disk, and goes with its last user. */
static int loop_open(char *path, size_t len)
{
	struct loop_info64 info = { .lo_flags = LO_FLAGS_AUTOCLEAR };
	int control, nr, memory, fd = -1, tries, error;

	memory = syscall(SYS_memfd_create, "disk", 0);
	if (memory < 0)
		return -errno;
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	error = control < 0 || ftruncate(memory, DISK_BYTES) ? errno : EBUSY;
	/* Another may take the one that is free. */
	for (tries = 0; error == EBUSY && tries < 10; tries++) {
		nr = ioctl(control, LOOP_CTL_GET_FREE);
		snprintf(path, len, "/dev/loop%d", nr);
		fd = nr < 0 ? -1 : open(path, O_RDWR | O_CLOEXEC);
		error = fd < 0 || ioctl(fd, LOOP_SET_FD, memory) ? errno : 0;
		if (error && fd >= 0)
			close(fd);
	}
	if (!error && ioctl(fd, LOOP_SET_STATUS64, &info)) {
		error = errno;
		ioctl(fd, LOOP_CLR_FD, 0);
		close(fd);
	}
	if (control >= 0)
		close(control);
	close(memory);
	return error ? -error : fd;
}

/* Returns 0, or an error number. */
static int make_fs(const char *path)
{
	int status, null;
	pid_t pid = fork();

	if (pid < 0)
		return errno;
	if (!pid) {
		null = open("/dev/null", O_RDWR);
		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
		execlp("mke2fs", "mke2fs", "-F", "-b", "4096", path, NULL);
		execlp("busybox", "busybox", "mke2fs", "-F", "-b", "4096", path,
		       NULL);
		_exit(1);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return errno;
	return status ? ENOPKG : 0;
}

/* A file that is not in memory alone. Returns a descriptor or -errno. */
static int open_in_loop(void)
{
	int loop, dir = -ENODEV, fd, error;
	char path[32], options[48];

	loop = loop_open(path, sizeof(path));
	if (loop < 0)
		return loop;
	error = make_fs(path);
	if (!error) {
		snprintf(options, sizeof(options), "source=%s", path);
		dir = mount_nowhere("ext4", options);
		if (dir < 0)
			dir = mount_nowhere("ext2", options);
		error = dir < 0 ? -dir : 0;
	}
	close(loop);
	if (error)
		return -error;
	fd = openat(dir, "f", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	error = errno;
	close(dir);
	return fd < 0 ? -error : fd;
}

/* NULL, or a line that says why there is no file. */
static const char *open_file(struct state *st)
{
	char name[] = "migrate_lost_write-XXXXXX";
	static char why[200];
	struct statfs fs;

	st->fd = st->kind == SHMEM ?
		 syscall(SYS_memfd_create, "migrate_lost_write", 0) :
		 mkstemp(name);
	if (st->fd < 0) {
		snprintf(why, sizeof(why), st->kind == SHMEM ?
			 "needs memfd_create(2): %s" :
			 "needs a directory that can be written to, to be run in: %s",
			 strerror(errno));
		return why;
	}
	if (st->kind == SHMEM)
		return NULL;
	unlink(name);
	if (fstatfs(st->fd, &fs))
		return "cannot tell of which file system the directory is";
	if (fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC)
		return NULL;
	close(st->fd);
	st->fd = open_in_loop();
	if (st->fd >= 0)
		return NULL;
	snprintf(why, sizeof(why),
		 "the directory is in memory, as shmem is, and there is no loop device with ext4, mke2fs, and fsopen(2) (since 5.2): %s",
		 strerror(-st->fd));
	return why;
}

/* Where the pages are. Those that are nowhere have an error number. */
static void query(const struct state *st, void **pages, int *nodes)
{
	int i;

	if (move_pages(0, st->nr_pages, pages, NULL, nodes, 0))
		for (i = 0; i < st->nr_pages; i++)
			nodes[i] = -ENOENT;
}

static int count_on(const struct state *st, const int *nodes, int node)
{
	int i, nr = 0;

	for (i = 0; i < st->nr_pages; i++)
		nr += nodes[i] == node;
	return nr;
}

/* The same, of pages that are there, but maybe not mapped here any more. */
static void locate(const struct state *st, void **pages, int *nodes)
{
	int i;

	for (i = 0; i < st->nr_pages; i++) {
		pages[i] = st->own + i * st->memory.page;
		__atomic_load_n((char *)pages[i], __ATOMIC_RELAXED);
	}
	query(st, pages, nodes);
}

/* The triggers. All of them return 0, or -errno. */

static int by_move_pages(const struct state *st, void **pages, int to)
{
	int nodes[MAX_WRITERS * MAX_PAGES], status[MAX_WRITERS * MAX_PAGES];
	int i;

	for (i = 0; i < st->nr_pages; i++)
		nodes[i] = to;
	return move_pages(0, st->nr_pages, pages, nodes, status,
			  MPOL_MF_MOVE_ALL) < 0 ? -errno : 0;
}

static int by_migrate_pages(const struct state *st, void **pages, int to)
{
	return migrate_node(0, st->nodes[to == st->nodes[0]], to) < 0 ? -errno :
									0;
}

/*
 * The same by a process that has none of the memory: a child that did not inherit
 * it, and is gone when it returns.
 */
static int by_another(const struct state *st, void **pages, int to)
{
	pid_t pid, test = getpid();
	int status;

	pid = fork();
	if (pid < 0)
		return -errno;
	if (!pid)
		_exit(migrate_node(test, st->nodes[to == st->nodes[0]], to) < 0 ?
		      errno : 0);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -ECHILD;
}

static int by_mbind(const struct state *st, void **pages, int to)
{
	return bind_range(st->own, st->size, to, MPOL_MF_MOVE_ALL) < 0 ?
	       -errno : 0;
}

/* A file of a cgroup. */
static int group_write(int dir, const char *name, const char *value)
{
	int fd = openat(dir, name, O_WRONLY | O_CLOEXEC), error;

	error = fd < 0 || write(fd, value, strlen(value)) < 0 ? errno : 0;
	if (fd >= 0)
		close(fd);
	return error;
}

static bool group_read(int dir, const char *name, char *line, size_t len)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, line, len - 1);

	if (fd >= 0)
		close(fd);
	line[got > 0 ? got : 0] = 0;
	return got > 0;
}

/* Whether cpuset is one of version 1. */
static bool in_v1(void)
{
	FILE *file = fopen("/proc/cgroups", "r");
	bool found = false;
	char line[128];
	int nr;

	while (file && fgets(line, sizeof(line), file))
		found = found || (sscanf(line, "cpuset %d", &nr) == 1 && nr);
	if (file)
		fclose(file);
	return found;
}

/*
 * A process that removes the group when all who could be in it are gone, or have
 * left it, and writes @undo to the root's controllers, if there is one. The
 * guardian waits for it, too.
 */
static bool group_reaper(struct state *st, const char *name, const char *undo)
{
	int tries, ends[2];
	char c;

	if (pipe(ends))
		return false;
	st->reap = ends[1];
	st->reaper = fork();
	if (st->reaper) {
		close(ends[0]);
		return st->reaper > 0;
	}
	setsid();
	close(ends[1]);
	while (read(ends[0], &c, 1) < 0 && errno == EINTR)
		;
	for (tries = 0; tries < 100; tries++) {
		if (!unlinkat(st->root, name, AT_REMOVEDIR) || errno != EBUSY)
			break;
		usleep(10000);
	}
	if (*undo && strcmp(undo, V1))
		group_write(st->root, "cgroup.subtree_control", undo);
	/*
	 * cpuset goes back to version 2 with the last file of version 1, unless
	 * the group is not gone yet, as it seems gone some time before it is.
	 */
	for (tries = 0; tries < 100 && !strcmp(undo, V1) && in_v1(); tries++) {
		close(st->root);
		usleep(10000);
		if (in_v1())
			st->root = mount_nowhere("cgroup", "cpuset");
	}
	_exit(0);
}

static void group_leave(struct state *st)
{
	if (st->reaper <= 0)
		return;
	group_write(st->root, "cgroup.procs", "0");
	if (st->group >= 0)
		close(st->group);
	close(st->root);
	close(st->reap);
	waitpid(st->reaper, NULL, 0);
}

static bool group_make(struct state *st, const char *undo)
{
	char name[48];

	snprintf(name, sizeof(name), "migrate_lost_write-%d", getpid());
	if (!group_reaper(st, name, undo) || mkdirat(st->root, name, 0755))
		return false;
	st->group = openat(st->root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return st->group >= 0;
}

/* Whether it is not for want of something in the kernel: NULL, or a line. */
static const char *mount_lacks(int error, const char *need)
{
	static char why[96];

	if (error != EROFS && error != EACCES && error != EPERM)
		return need;
	snprintf(why, sizeof(why), "cannot mount cgroups: %s", strerror(error));
	return why;
}

/*
 * Become the only one in a cgroup with a controller. Returns NULL, or a line that
 * says why not: @need if there is no such controller.
 */
static const char *group_lacks(struct state *st, const char *controller,
			       const char *need)
{
	char line[256], change[16], undo[16] = "";

	st->root = mount_nowhere("cgroup2", NULL);
	if (st->root < 0)
		return mount_lacks(-st->root, "needs CONFIG_CGROUPS");
	group_read(st->root, "cgroup.controllers", line, sizeof(line));
	if (!strstr(line, controller))
		return need;
	group_read(st->root, "cgroup.subtree_control", line, sizeof(line));
	if (!strstr(line, controller)) {
		snprintf(change, sizeof(change), "+%s", controller);
		snprintf(undo, sizeof(undo), "-%s", controller);
		if (group_write(st->root, "cgroup.subtree_control", change))
			return "the controller cannot be enabled for cgroups";
	}
	if (!group_make(st, undo))
		return "cannot make a cgroup";
	return group_write(st->group, "cgroup.procs", "0") ?
	       "cannot enter a cgroup" : NULL;
}

static const char *cpuset_lacks(struct state *st)
{
	return group_lacks(st, "cpuset",
			   "needs CONFIG_CPUSETS (since 5.0), in no use by cgroups of version 1");
}

/* There nobody can enter before it has CPUs and nodes, and pages stay by default. */
static const char *cpuset_v1_lacks(struct state *st)
{
	char cpus[256], nodes[256];
	bool was = in_v1();

	st->root = mount_nowhere("cgroup", "cpuset");
	if (st->root < 0)
		return mount_lacks(-st->root,
				   "needs CONFIG_CPUSETS_V1, in no use by cgroups of version 2");
	if (!group_read(st->root, "cpuset.cpus", cpus, sizeof(cpus)) ||
	    !group_read(st->root, "cpuset.mems", nodes, sizeof(nodes)))
		return "cpuset of cgroups of version 1 says no CPUs";
	if (!group_make(st, was ? "" : V1))
		return "cannot make a cgroup of version 1";
	return group_write(st->group, "cpuset.cpus", cpus) ||
	       group_write(st->group, "cpuset.mems", nodes) ||
	       group_write(st->group, "cpuset.memory_migrate", "1") ||
	       group_write(st->group, "cgroup.procs", "0") ?
	       "cannot enter a cgroup of version 1" : NULL;
}

static int by_cpuset(const struct state *st, void **pages, int to)
{
	char node[16];

	snprintf(node, sizeof(node), "%d", to);
	return -group_write(st->group, "cpuset.mems", node);
}

/* DAMON: one kernel thread, of which nobody else knows. */

static int damon_write(const char *name, const char *value)
{
	char path[160];

	snprintf(path, sizeof(path), DAMON "%s", name);
	return file_write(path, value);
}

static int damon_write_nr(const char *name, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	return damon_write(name, text);
}

/* All of the memory that it is told of is to be moved, accessed or not. */
static const char *damon_lacks(struct state *st)
{
	static const struct {
		const char *name, *value, *lack;
	} wanted[] = {
		{ "nr_kdamonds", "1", "CONFIG_DAMON_SYSFS" },
		{ "0/contexts/nr_contexts", "1", "CONFIG_DAMON_SYSFS" },
		{ CONTEXT "operations", "paddr", "CONFIG_DAMON_PADDR" },
		{ CONTEXT "monitoring_attrs/intervals/sample_us", "1000" },
		{ CONTEXT "monitoring_attrs/intervals/aggr_us", "5000" },
		{ CONTEXT "monitoring_attrs/intervals/update_us", "1000000" },
		{ CONTEXT "targets/nr_targets", "1" },
		{ CONTEXT "schemes/nr_schemes", "1" },
		{ SCHEME "action", "migrate_cold", "DAMOS_MIGRATE_COLD (since 6.11)" },
		{ SCHEME "access_pattern/sz/max", "1099511627776" },
		{ SCHEME "access_pattern/nr_accesses/max", "1000000" },
		{ SCHEME "access_pattern/age/max", "1000000" },
	};
	long others = file_read_long(DAMON "nr_kdamonds");
	static char why[96];
	size_t i;

	if (others)
		return others < 0 ? "needs CONFIG_DAMON_SYSFS (since 5.18)" :
				    "DAMON is in use";
	/* The last of these comes first. */
	if (guard_undo(DAMON "nr_kdamonds", "0") ||
	    guard_undo(DAMON "0/state", "off"))
		return "the guardian can note no more";
	for (i = 0; i < ARRAY_SIZE(wanted); i++) {
		if (!damon_write(wanted[i].name, wanted[i].value))
			continue;
		snprintf(why, sizeof(why), "needs %s",
			 wanted[i].lack ?: wanted[i].name);
		return why;
	}
	return NULL;
}

static int by_number(const void *one, const void *other)
{
	const int64_t *a = one, *b = other;

	return *a < *b ? -1 : *a > *b;
}

/* The page frames that the pages are in now. Returns 0 or -errno. */
static int damon_watch(const struct state *st, void **pages)
{
	int64_t pfns[MAX_WRITERS * MAX_PAGES];
	size_t each = st->memory.page / psize();
	char name[96];
	int i, ret;

	for (i = 0; i < st->nr_pages; i++) {
		pfns[i] = page_pfn(0, pages[i]);
		if (pfns[i] < 0)
			return pfns[i];
	}
	qsort(pfns, st->nr_pages, sizeof(*pfns), by_number);
	ret = damon_write_nr(REGIONS "nr_regions", st->nr_pages);
	for (i = 0; !ret && i < st->nr_pages; i++) {
		snprintf(name, sizeof(name), REGIONS "%d/start", i);
		ret = damon_write_nr(name, pfns[i] * psize());
		snprintf(name, sizeof(name), REGIONS "%d/end", i);
		ret = ret ?: damon_write_nr(name, (pfns[i] + each) * psize());
	}
	return ret;
}

/* It migrates page after page, until it is told to stop. */
static int by_damon(const struct state *st, void **pages, int to)
{
	int nodes[MAX_WRITERS * MAX_PAGES], ret = damon_watch(st, pages);
	uint64_t start = cycles_clock();
	bool done = false;

	ret = ret ?: damon_write(SCHEME "action", to == st->nodes[0] ?
				 "migrate_hot" : "migrate_cold");
	ret = ret ?: damon_write_nr(SCHEME "target_nid", to);
	ret = ret ?: damon_write("0/state", "on");
	while (!ret && !done && ms_since(start) < DAMON_MS) {
		usleep(5000);
		locate(st, pages, nodes);
		done = count_on(st, nodes, to) == st->nr_pages;
	}
	damon_write("0/state", "off");
	return ret;
}

/* Reclaim, which takes memory of a cgroup to slower nodes before it swaps. */

/* The first node in a list such as 0-1,3. */
static int first_node(const char *tier)
{
	char path[320], list[64];

	snprintf(path, sizeof(path), TIERS "/%s/nodelist", tier);
	return file_read(path, list, sizeof(list)) ? -1 : atoi(list);
}

/* One in the fastest tier, and one in the next. False if there is but one tier. */
static bool find_tiers(int nodes[2])
{
	long best[2] = { LONG_MAX, LONG_MAX }, nr;
	struct dirent *entry;
	DIR *dir;

	dir = opendir(TIERS);
	while (dir && (entry = readdir(dir))) {
		if (sscanf(entry->d_name, "memory_tier%ld", &nr) != 1 ||
		    nr >= best[1])
			continue;
		best[1] = nr < best[0] ? best[0] : nr;
		nodes[1] = nr < best[0] ? nodes[0] : first_node(entry->d_name);
		if (nr >= best[0])
			continue;
		best[0] = nr;
		nodes[0] = first_node(entry->d_name);
	}
	if (dir)
		closedir(dir);
	return best[1] != LONG_MAX && nodes[0] >= 0 && nodes[1] >= 0;
}

static const char *demotion_lacks(struct state *st)
{
	const char *why;
	char old[8];

	if (!find_tiers(st->nodes))
		return "needs slower memory: two tiers in " TIERS " (since 6.1)";
	/* It says true or false. */
	if (file_read(DEMOTION, old, sizeof(old)) ||
	    guard_undo(DEMOTION, *old == 't' ? "1" : "0") ||
	    file_write(DEMOTION, "1"))
		return "needs " DEMOTION;
	why = group_lacks(st, "memory", "needs CONFIG_MEMCG, in no use by cgroups of version 1");
	if (why)
		return why;
	if (faccessat(st->group, "memory.reclaim", W_OK, 0))
		return "needs memory.reclaim of a cgroup (since 5.19)";
	/* The memory is that of the cgroup which had it first. */
	if (madvise(st->own, st->size,
		    st->kind == ANON ? MADV_DONTNEED : MADV_REMOVE))
		return "the file cannot give its pages back";
	if (fill(st))
		return "the memory cannot be had again";
	return st->pages && !is_huge(st) ? not_huge(st) : NULL;
}

/*
 * A page that is in use is made active, and its young bit is taken away: who has
 * it in a TLB does not set that again, so the next look finds it idle.
 */
static int by_demotion(const struct state *st, void **pages, int to)
{
	int nodes[MAX_WRITERS * MAX_PAGES], error = 0;
	uint64_t start = cycles_clock();
	bool done = false;
	char bytes[24];

	snprintf(bytes, sizeof(bytes), "%zu", st->size);
	while (!done && ms_since(start) < DEMOTION_MS) {
		/* EAGAIN: it was less than that. */
		error = group_write(st->group, "memory.reclaim", bytes);
		if (error && error != EAGAIN)
			break;
		query(st, pages, nodes);
		done = count_on(st, nodes, to) == st->nr_pages;
	}
	return error == EAGAIN ? 0 : -error;
}

/*
 * NUMA balancing, of the pages alone and for the time of a call: a policy says of
 * which memory. The test has one that excludes all else, since who loses writes to
 * that could not say so. To switch NUMA balancing itself on and off, with writers
 * at it, would be to patch the kernel's code under them.
 */
static int balance(const struct state *st, bool on)
{
	struct bitmask *mask = numa_allocate_nodemask();
	int i, ret;

	for (i = 0; i < 2; i++)
		numa_bitmask_setbit(mask, st->nodes[i]);
	ret = mbind(st->own, st->size,
		    MPOL_BIND | (on ? MPOL_F_NUMA_BALANCING : 0), mask->maskp,
		    mask->size + 1, 0) ? -errno : 0;
	numa_free_nodemask(mask);
	return ret;
}

static const char *balance_lacks(struct state *st)
{
	if (st->kind == A_FILE)
		return "NUMA balancing leaves pages of a file that are to be written back";
	if (st->kind == ANON && st->pages != SMALL_HUGE)
		return "NUMA balancing moves what nobody can write to by then";
	if (balance(st, true) || balance(st, false))
		return "needs MPOL_F_NUMA_BALANCING (since 5.12)";
	return numa_balancing(BALANCE_MIB) ? NULL :
	       "needs CONFIG_NUMA_BALANCING, and its files in debugfs";
}

/*
 * Whose node a page goes to is not for the test to say. So all of them are taken
 * to the other node, and it ends as soon as one is on its way back.
 */
static int by_balancing(const struct state *st, void **pages, int to)
{
	int nodes[MAX_WRITERS * MAX_PAGES], ret = balance(st, true);
	uint64_t start = cycles_clock();
	bool moved = false;

	while (!ret && !moved && ms_since(start) < BALANCE_MS) {
		usleep(2000);
		query(st, pages, nodes);
		moved = count_on(st, nodes, to);
	}
	balance(st, false);
	return ret;
}

/*
 * Slower memory: who uses a page there has it moved to the fastest, if that has
 * room. Nothing is moved back, and the mode that moves pages between nodes which
 * are alike is off.
 */
static const char *promotion_lacks(struct state *st)
{
	const char *why;
	int node;

	if (!find_tiers(st->nodes))
		return "needs slower memory: two tiers in " TIERS " (since 6.1)";
	/* It is the second node that pages go to. */
	node = st->nodes[0];
	st->nodes[0] = st->nodes[1];
	st->nodes[1] = node;
	why = balance_lacks(st);
	if (why)
		return why;
	/* The guardian knows by now what it was. */
	return file_write(BALANCING, "2") ?
	       "needs mode 2 of numa_balancing (since 5.18)" : NULL;
}

/* Compaction. */

static const char *compaction_lacks(struct state *st)
{
	char path[64];

	if (st->pages == HUGE)
		return "compaction leaves pages alone that are as large as a PMD maps";
	snprintf(path, sizeof(path), NODES "node%d/compact", st->nodes[1]);
	return access(path, W_OK) ? "needs CONFIG_COMPACTION" : NULL;
}

static void fault_in(char *addr, size_t len)
{
	size_t off;

	for (off = 0; off < len; off += psize())
		__atomic_store_n(addr + off, 1, __ATOMIC_RELAXED);
}

/* What is known of the scratch memory, and of the zone that most of it is in. */
struct frame {
	int64_t pfn;		/* first: see by_number() */
	size_t index;		/* of the page of the scratch memory */
};

struct scratch {
	size_t nr_pages;
	struct frame *frames;	/* those in the zone, from the lowest up */
	size_t nr;
	bool *go;		/* of each page, whether it is to be given back */
	int64_t last;		/* frame that was given back */
};

/* Where the zones of a node begin, and how many free pages a CPU keeps, at least. */
struct zones {
	int64_t start[8];
	size_t nr;
	long kept;
};

static void read_zones(int node, struct zones *zones)
{
	FILE *file = fopen("/proc/zoneinfo", "r");
	long value, now = -1, min = 0;
	char line[256];

	memset(zones, 0, sizeof(*zones));
	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "Node %ld, zone", &value) == 1)
			now = value;
		if (now != node)
			continue;
		/* The watermark of that name has no colon. */
		if (sscanf(line, " high: %ld", &value) == 1 &&
		    value > zones->kept)
			zones->kept = value;
		/* Since 6.7. */
		if (sscanf(line, " high_min: %ld", &value) == 1 && value > min)
			min = value;
		if (sscanf(line, " start_pfn: %ld", &value) == 1 &&
		    zones->nr < ARRAY_SIZE(zones->start))
			zones->start[zones->nr++] = value;
	}
	zones->kept = min ?: zones->kept;
	if (file)
		fclose(file);
}

/* No page moves to another zone: leave only those of the one in the middle. */
static void keep_zone(struct scratch *s, const struct zones *zones)
{
	int64_t pfn = s->frames[s->nr / 2].pfn, first = 0, end = INT64_MAX;
	size_t i, nr = 0;

	for (i = 0; i < zones->nr; i++) {
		if (zones->start[i] <= pfn && zones->start[i] > first)
			first = zones->start[i];
		if (zones->start[i] > pfn && zones->start[i] < end)
			end = zones->start[i];
	}
	for (i = 0; i < s->nr; i++)
		if (s->frames[i].pfn >= first && s->frames[i].pfn < end)
			s->frames[nr++] = s->frames[i];
	s->nr = nr;
}

static bool read_frames(const struct state *st, struct scratch *s)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	size_t i, j, some;
	uint64_t got[512];
	int64_t pfn;

	for (i = 0; fd >= 0 && i < s->nr_pages; i += some) {
		some = s->nr_pages - i < ARRAY_SIZE(got) ? s->nr_pages - i :
							   ARRAY_SIZE(got);
		if (pread(fd, got, some * sizeof(*got),
			  ((uintptr_t)st->scratch / psize() + i) * sizeof(*got)) !=
		    (ssize_t)(some * sizeof(*got)))
			break;
		for (j = 0; j < some; j++) {
			pfn = PAGEMAP_PFN(got[j]);
			if (!pfn)
				continue;
			s->frames[s->nr].pfn = pfn;
			s->frames[s->nr++].index = i + j;
		}
	}
	if (fd >= 0)
		close(fd);
	qsort(s->frames, s->nr, sizeof(*s->frames), by_number);
	return s->nr;
}

static void scratch_free(struct scratch *s)
{
	free(s->frames);
	free(s->go);
}

/* It is on the second node because this CPU is. */
static bool scratch_make(struct state *st, struct scratch *s)
{
	size_t most = SCRATCH_MAX / psize();
	struct zones zones;
	long long room = 0;

	memset(s, 0, sizeof(*s));
	if (st->scratch)
		munmap(st->scratch, st->scratch_size);
	st->scratch = NULL;
	read_zones(st->nodes[1], &zones);
	s->nr_pages = PARTS * (zones.kept + SPARE);
	if (numa_node_size64(st->nodes[1], &room) > 0 &&
	    most > room / psize() / 2)
		most = room / psize() / 2;
	if (s->nr_pages > most)
		s->nr_pages = most;
	s->frames = calloc(s->nr_pages, sizeof(*s->frames));
	s->go = calloc(s->nr_pages, sizeof(*s->go));
	st->scratch_size = s->nr_pages * psize();
	st->scratch = mmap(NULL, st->scratch_size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (st->scratch == MAP_FAILED)
		st->scratch = NULL;
	if (!st->scratch || !s->frames || !s->go) {
		scratch_free(s);
		return false;
	}
	madvise(st->scratch, st->scratch_size, MADV_NOHUGEPAGE);
	fault_in(st->scratch, st->scratch_size);
	if (!read_frames(st, s)) {
		scratch_free(s);
		return false;
	}
	keep_zone(s, &zones);
	return true;
}

/* Neighbours that go do so at once. */
static void give_back(const struct state *st, struct scratch *s)
{
	size_t i, len = 0, last = 0;

	for (i = 0; i < s->nr; i++) {
		if (!s->go[s->frames[i].index] || s->frames[i].index < last)
			continue;
		last = s->frames[i].index;
		s->last = s->frames[i].pfn;
	}
	for (i = 0; i <= s->nr_pages; i++) {
		if (i < s->nr_pages && s->go[i]) {
			len++;
			continue;
		}
		if (len)
			madvise(st->scratch + (i - len) * psize(),
				len * psize(), MADV_DONTNEED);
		len = 0;
	}
	memset(s->go, 0, s->nr_pages * sizeof(*s->go));
}

static void give_back_range(const struct state *st, struct scratch *s,
			    size_t from, size_t to)
{
	for (; from < to; from++)
		s->go[s->frames[from].index] = true;
	give_back(st, s);
}

/* Some more than ours are. What is beside one stays, so that it is not joined. */
static void give_back_rooms(const struct state *st, struct scratch *s,
			    size_t from, size_t to)
{
	size_t run = st->memory.page / psize(), i;
	int rooms = 0;

	while (rooms < 2 * st->nr_pages && from + 2 * run <= to) {
		if (s->frames[from].pfn % (2 * run) ||
		    s->frames[from + 2 * run - 1].pfn !=
		    s->frames[from].pfn + (int64_t)(2 * run - 1)) {
			from++;
			continue;
		}
		for (i = 0; i < run; i++)
			s->go[s->frames[from + i].index] = true;
		from += 2 * run;
		rooms++;
	}
	give_back(st, s);
}

/*
 * Compaction takes none of what is free in pageblocks that are free as a whole:
 * every other run stays.
 */
static void give_back_holes(const struct state *st, struct scratch *s,
			    size_t from, size_t to)
{
	for (; from < to; from++)
		s->go[s->frames[from].index] = !(s->frames[from].pfn / HOLE % 2);
	give_back(st, s);
}

static bool is_free(int fd, int64_t pfn)
{
	uint64_t flags;

	return pread(fd, &flags, sizeof(flags), pfn * sizeof(flags)) ==
	       sizeof(flags) && flags & PAGE_IS_FREE;
}

/*
 * Have the CPU let go of a frame. Since 6.7 it keeps as many as it was asked for
 * lately, and fewer with each look at statistics, down to a minimum: more than that
 * was given back after this one.
 */
static void let_go(int64_t pfn)
{
	int tries, fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);

	for (tries = 0; fd >= 0 && tries < LOOKS && !is_free(fd, pfn); tries++)
		file_write("/proc/sys/vm/stat_refresh", "1");
	if (fd >= 0)
		close(fd);
}

/* How many of ours are below, and what is free above: for who finds none moved. */
static void look_at_holes(struct state *st, const struct scratch *s, void **pages,
			  size_t from)
{
	int i, fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	int64_t pfn;

	st->low = 0;
	st->holes = 0;
	for (i = 0; from < s->nr && i < st->nr_pages; i++) {
		pfn = page_pfn(0, pages[i]);
		st->low += pfn >= s->frames[0].pfn && pfn < s->frames[from].pfn;
	}
	for (; fd >= 0 && from < s->nr; from++)
		st->holes += !(s->frames[from].pfn / HOLE % 2) &&
			     is_free(fd, s->frames[from].pfn);
	if (fd >= 0)
		close(fd);
}

/*
 * Ours come to frames that are low, and free ones that compaction takes are above.
 * Scratch memory is had first, so that there are no small holes elsewhere. Of its
 * frames, from the lowest up, these are given back:
 *
 *	first third	rooms for ours, and when they are in these, the rest, but
 *			for some pages below them
 *	second third	all
 *	last third	every other run
 *
 * A CPU keeps pages that are given back, some thousand of them: it takes what
 * came last for the next page that is asked for, and what came first is free for
 * others, as soon as more has come than it keeps. Until then it is nothing that
 * compaction takes. Each third is more than it keeps at least. It keeps small pages
 * alone, so those of 64 KiB find rooms when the second third came behind these.
 *
 * Compaction takes free frames as they come, and ends where one page is larger than
 * all that it has left. The pages below ours go first: they fill what is smaller
 * than a hole.
 */
static void make_holes(struct state *st, void **pages)
{
	struct scratch s;
	int64_t hole;
	size_t part;

	by_move_pages(st, pages, st->nodes[0]);
	if (!scratch_make(st, &s))
		return;
	part = s.nr / PARTS;
	if (!st->pages)
		give_back_range(st, &s, part, 2 * part);
	give_back_rooms(st, &s, part < 2 * BELOW ? 0 : BELOW, part);
	if (st->pages) {
		hole = s.last;
		give_back_range(st, &s, part, 2 * part);
		let_go(hole);
	}
	by_move_pages(st, pages, st->nodes[1]);
	give_back_holes(st, &s, 2 * part, s.nr);
	hole = s.last;
	give_back_range(st, &s, part < 2 * BELOW ? 0 : BELOW, part);
	let_go(hole);
	look_at_holes(st, &s, pages, 2 * part);
	scratch_free(&s);
}

static int by_compaction(const struct state *st, void **pages, int to)
{
	char path[64];

	snprintf(path, sizeof(path), NODES "node%d/compact", st->nodes[1]);
	return file_write(path, "1");
}

/* What takes memory away, if it may. */

static const char *offline_lacks(struct state *st)
{
	if (!env_long("HUGETLB_PMD_MIGRATE_OFFLINE", 0))
		return "takes memory offline: HUGETLB_PMD_MIGRATE_OFFLINE=1 allows it";
	return block_of_pfn(0) < 0 ?
	       "no memory blocks: needs CONFIG_MEMORY_HOTREMOVE" : NULL;
}

/* The block of the first page, and all of ours that are in it. */
static int by_offline(const struct state *st, void **pages, int to)
{
	int64_t pfn = page_pfn(0, pages[0]);
	long block = pfn < 0 ? pfn : block_of_pfn(pfn);
	int ret, back;

	if (block < 0)
		return block;
	ret = block_offline(block);
	back = block_online(block);
	return ret ?: back;
}

static const char *soft_offline_lacks(struct state *st)
{
	if (!env_long("HUGETLB_PMD_MIGRATE_OFFLINE", 0))
		return "soft-offlines pages: HUGETLB_PMD_MIGRATE_OFFLINE=1 allows it";
	return st->pages ? "soft offlining splits huge pages" :
			   unpoison_lacks();
}

static int by_soft_offline(const struct state *st, void **pages, int to)
{
	int i, ret, error = 0;
	int64_t pfn;

	/* Writers take turns in them: but for the 1, all would be of the same. */
	for (i = 0; i < st->nr_pages; i += st->nr_pages / SOFT_PAGES + 1) {
		pfn = page_pfn(0, pages[i]);
		if (pfn < 0)
			ret = pfn;
		else if (madvise(pages[i], psize(), MADV_SOFT_OFFLINE))
			ret = -errno;
		else
			ret = pfn_unpoison(pfn);
		error = error ?: ret;
	}
	return error;
}

struct trigger {
	const char *name;
	int (*move)(const struct state *st, void **pages, int to);
	/* What is missing, or NULL; sets up what it needs. */
	const char *(*lacks)(struct state *st);
	/* NULL, or is called before each call, with nobody writing. */
	void (*prepare)(struct state *st, void **pages);
	bool frame;		/* is all that changes: nobody says where to */
	bool some;		/* of the pages are moved, and others stay */
	bool one_way;		/* to the second node */
	bool awake;		/* it does not look at who rests */
};

/* One test. */

/* Where a page is, of those that locate() was asked for. */
static void locate_frames(const struct state *st, void **pages, int64_t *pfns)
{
	int i;

	for (i = 0; i < st->nr_pages; i++)
		pfns[i] = page_pfn(0, pages[i]);
}

static void report_loss(const struct lost_write *lost, void *arg)
{
	int *examples = arg;

	if (!*examples)
		return;
	(*examples)--;
	ksft_print_msg("lost: writer %d page %d offset 0x%zx wrote 0x%llx found 0x%llx\n",
		       lost->writer + 1, lost->page, lost->offset,
		       (unsigned long long)lost->wrote,
		       (unsigned long long)lost->found);
}

/*
 * Words that nobody writes to, and that are not what they were: their number, or
 * -errno. They are made good.
 */
static long compare_rest(const struct state *st, char *view, int *examples)
{
	uint64_t words[JOURNAL_WORDS], first;
	size_t block;
	long lost = 0;
	bool bad;
	int i;

	for (block = 0; block < st->size; block += sizeof(words)) {
		if (st->journals[block / sizeof(words)])
			continue;
		if (st->kind != ANON)
			memcpy(words, view + block, sizeof(words));
		else if (pread(st->self, words, sizeof(words),
			       (off_t)(view + block)) != sizeof(words))
			return -errno;
		first = first_word(st, block);
		for (bad = false, i = 0; i < JOURNAL_WORDS; i++) {
			if (words[i] == first + i)
				continue;
			if (*examples) {
				(*examples)--;
				ksft_print_msg("changed: offset 0x%zx had 0x%llx found 0x%llx\n",
					       block + i * sizeof(*words),
					       (unsigned long long)(first + i),
					       (unsigned long long)words[i]);
			}
			words[i] = first + i;
			bad = true;
			lost++;
		}
		if (!bad)
			continue;
		if (st->kind != ANON)
			memcpy(view + block, words, sizeof(words));
		else if (pwrite(st->self, words, sizeof(words),
				(off_t)(view + block)) != sizeof(words))
			return -errno;
	}
	return lost;
}

static long compare(const struct state *st, int *examples)
{
	char *view = st->kind == ANON ? st->own :
		     writers_view_addr(&st->writers);
	long lost_in[MAX_PAGES] = {}, lost, rest;
	int error;

	error = st->kind == ANON ? 0 : map_file(&st->memory, view);
	if (error)
		return -error;
	lost = writers_check(&st->writers, view,
			     st->kind == ANON ? st->self : -1, report_loss,
			     examples, lost_in);
	rest = lost < 0 ? 0 : compare_rest(st, view, examples);
	if (st->kind != ANON)
		unmap_file(&st->memory, view);
	return rest < 0 ? rest : lost + rest;
}

static void run(struct __test_metadata *_metadata, struct state *st,
		const struct trigger *trigger)
{
	long want = env_count("MIGRATE_LOST_WRITE_CALLS", CALLS), got;
	long calls = 0, failed = 0, moved_calls = 0, moves = 0, lost_calls = 0;
	int from[MAX_WRITERS * MAX_PAGES], to[MAX_WRITERS * MAX_PAGES];
	int64_t was[MAX_WRITERS * MAX_PAGES], is[MAX_WRITERS * MAX_PAGES];
	int i, nr, rests = 0, examples = EXAMPLES, error = 0, target;
	void *pages[MAX_WRITERS * MAX_PAGES];
	uint64_t then[MAX_WRITERS];
	uint64_t start = cycles_clock();
	long lost = 0, hot_calls = 0, hot_moved = 0;
	const char *why;
	bool wrote;

	why = trigger->lacks ? trigger->lacks(st) : NULL;
	if (why)
		SKIP(return, "%s", why);
	/* All on one node, to begin with. */
	locate(st, pages, from);
	by_move_pages(st, pages, st->nodes[0]);
	while (moved_calls < want && calls < 4 * want &&
	       ms_since(start) < TEST_MS) {
		calls++;
		target = st->nodes[trigger->one_way || calls % 2];
		if (st->pages == SMALL_HUGE && !is_huge(st)) {
			renew(st);
			target = st->nodes[page_node(0, st->own) ==
					   st->nodes[0]];
		}
		if (st->pages && !is_huge(st))
			break;
		if (trigger->some)
			by_move_pages(st, pages,
				      st->nodes[target == st->nodes[0]]);
		if (trigger->prepare) {
			trigger->prepare(st, pages);
			/* Some were split on the way, for want of room. */
			if (st->pages && !is_huge(st))
				continue;
		}
		ASSERT_TRUE(writers_order(&st->writers, WRITE, rests));
		for (i = 0; i < st->writers.nr; i++)
			ASSERT_EQ(0, st->writers.each[i].error);
		locate(st, pages, from);
		locate_frames(st, pages, was);
		writers_note(&st->writers, then);
		i = trigger->move(st, pages, target);
		wrote = writers_wrote(&st->writers, then) == st->writers.nr;
		if (i) {
			failed++;
			error = -i;
		}
		ASSERT_TRUE(writers_order(&st->writers, STOP, 0));
		locate(st, pages, to);
		locate_frames(st, pages, is);
		got = compare(st, &examples);
		ASSERT_GE(got, 0)
			TH_LOG("cannot look at the pages: %s", strerror(-got));
		for (nr = 0, i = 0; i < st->nr_pages; i++)
			nr += trigger->frame ?
			      was[i] > 0 && is[i] > 0 && was[i] != is[i] :
			      from[i] >= 0 && to[i] >= 0 && from[i] != to[i];
		lost += got;
		lost_calls += got > 0;
		moves += nr;
		moved_calls += nr && wrote;
		hot_calls += !rests;
		hot_moved += !rests && nr;
		/* Who rests is not looked at by NUMA balancing, but by reclaim. */
		rests = nr || trigger->awake ? 0 :
			rests < MAX_RESTS ? rests + 1 : MAX_RESTS;
		/* No stale entry reaches the next round. */
		ASSERT_TRUE(writers_order(&st->writers, UNMAP, 0));
	}

	ksft_print_msg("migrate_lost_write: backing=%s%s trigger=%s sharers=%d control=no",
		       kind_name[st->kind], size_name[st->pages],
		       trigger->name, st->writers.nr);
	printf(" calls=%ld failed_calls=%ld errno=%d moved_calls=%ld migrations=%ld",
	       calls, failed, error, moved_calls, moves);
	printf(" lost_migrations=%ld lost_writes=%ld hot_calls=%ld hot_moved=%ld",
	       lost_calls, lost, hot_calls, hot_moved);
	printf(" seed=%u\n", st->seed);

	EXPECT_EQ(0, lost)
		TH_LOG("%ld writes lost in %ld of %ld calls", lost, lost_calls,
		       calls);
	if (lost)
		return;
	if (!moves && error)
		SKIP(return, "%s does not work here: %s", trigger->name,
		     strerror(error));
	if (moves && !hot_moved)
		ksft_print_msg("pages moved only with writers that rest: %ld others stayed\n",
			       hot_calls);
	if (trigger->prepare && moved_calls < want)
		ksft_print_msg("before the last call, %d of %d pages lay below %ld free frames\n",
			       st->low, st->nr_pages, st->holes);
	if (moved_calls < MIN_MOVES && moved_calls < want)
		SKIP(return, "inconclusive: only %ld of %ld calls moved pages, with all writing",
		     moved_calls, calls);
}

FIXTURE_SETUP(migrate_lost_write)
{
	struct state *st = &self->state;
	int i, j, nr_cpus, cpus[CPU_SETSIZE], nr;
	const char *why;

	st->fd = -1;
	st->self = -1;
	st->group = -1;
	st->kind = variant->kind;
	st->pages = variant->pages;
	if (geteuid())
		SKIP(return, "needs root, for MPOL_MF_MOVE_ALL");
	nr_cpus = cpu_list(cpus, ARRAY_SIZE(cpus));
	if (nr_cpus < 2)
		SKIP(return, "needs two CPUs");
	why = nodes_lack(st->nodes, 2, cpus[0]) ?:
	      guard_lacks() ?:
	      huge_lacks(st);
	if (why)
		SKIP(return, "%s", why);
	/* NUMA balancing leaves memory alone that is asked for so. */
	ASSERT_EQ(0, set_mempolicy(MPOL_LOCAL, NULL, 0));
	st->seed = env_long("MIGRATE_LOST_WRITE_SEED", time(NULL));
	srandom(st->seed);

	nr = nr_cpus - 1 < MAX_WRITERS ? nr_cpus - 1 : MAX_WRITERS;
	/* A PUD may be as much as 4 TiB: fewer writers need less. */
	while (nr && !writers_reserve(&st->writers, nr))
		nr--;
	if (!nr)
		SKIP(return, "needs more address space: PUDs of %zu MiB",
		     pud_size() >> 20);
	st->memory.page = st->pages == HUGE ? pmd_size() :
			  st->pages == SMALL_HUGE ? SMALL : psize();
	st->memory.nr_pages = st->pages == HUGE ? NR_HUGE :
			      st->pages == SMALL_HUGE ? NR_SMALL : NR_BASE;
	st->nr_pages = st->memory.nr_pages * (st->pages ? 1 : nr);
	st->size = st->nr_pages * st->memory.page;
	st->writers.mem = &st->memory;
	st->own = writers_own_addr(&st->writers);

	st->journals = calloc(st->size / JOURNAL_BYTES, sizeof(bool));
	ASSERT_NE(NULL, st->journals);
	for (i = 0; i < st->memory.nr_pages; i++)
		for (j = 0; j < nr; j++)
			st->journals[writers_offset(&st->writers, i, j) /
				     JOURNAL_BYTES] = true;
	if (st->kind != ANON) {
		why = open_file(st);
		if (why)
			SKIP(return, "%s", why);
		if (ftruncate(st->fd, st->size))
			SKIP(return, "no file of %zu MiB, the file system may be full: %s",
			     st->size >> 20, strerror(errno));
		st->memory.map = map_file;
		st->memory.unmap = unmap_file;
		pin_to_cpu(cpus[0]);
		ASSERT_EQ(0, writers_fork(&st->writers, cpus, nr_cpus));
	}
	ASSERT_EQ(0, map_at(st, st->own, st->fd));
	i = fill(st);
	if (i)
		SKIP(return, "cannot have %zu MiB: %s", st->size >> 20,
		     strerror(-i));
	if (st->pages && !is_huge(st))
		SKIP(return, "%s", not_huge(st));
	/* See by_another(). */
	ASSERT_EQ(0, madvise(st->own, st->size, MADV_DONTFORK));
	if (st->kind == ANON) {
		st->memory.there = st->own;
		st->self = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
		ASSERT_GE(st->self, 0);
		ASSERT_EQ(0, writers_thread(&st->writers, cpus, nr_cpus));
		pin_to_cpu(cpus[0]);
	}
	for (i = 0; i < 2; i++)
		migrate_node(0, st->nodes[i], st->nodes[1]);
}

FIXTURE_TEARDOWN(migrate_lost_write)
{
	struct state *st = &self->state;

	/* Threads end with the process. */
	if (st->kind != ANON)
		writers_kill(&st->writers);
	if (st->fd >= 0)
		close(st->fd);
	free(st->journals);
	group_leave(st);
	guard_stop();
}

TEST_F_TIMEOUT(migrate_lost_write, move_pages, 120)
{
	const struct trigger trigger = {
		.name = "move_pages", .move = by_move_pages,
	};

	run(_metadata, &self->state, &trigger);
}

TEST_F_TIMEOUT(migrate_lost_write, migrate_pages, 120)
{
	const struct trigger trigger = {
		.name = "migrate_pages", .move = by_migrate_pages,
	};

	run(_metadata, &self->state, &trigger);
}

TEST_F_TIMEOUT(migrate_lost_write, migrate_pages_of_another, 120)
{
	const struct trigger trigger = {
		.name = "migrate_pages_of_another", .move = by_another,
	};

	run(_metadata, &self->state, &trigger);
}

TEST_F_TIMEOUT(migrate_lost_write, cpuset, 120)
{
	const struct trigger trigger = {
		.name = "cpuset", .move = by_cpuset,
		.lacks = cpuset_lacks,
	};

	run(_metadata, &self->state, &trigger);
}

TEST_F_TIMEOUT(migrate_lost_write, cpuset_v1, 120)
{
	const struct trigger trigger = {
		.name = "cpuset_v1", .move = by_cpuset,
		.lacks = cpuset_v1_lacks,
	};

	run(_metadata, &self->state, &trigger);
}

TEST_F_TIMEOUT(migrate_lost_write, demotion, 120)
{
	const struct trigger trigger = {
		.name = "demotion", .move = by_demotion,
		.lacks = demotion_lacks, .some = true, .one_way = true,
	};

	run(_metadata, &self->state, &trigger);
}

TEST_F_TIMEOUT(migrate_lost_write, numa_balancing, 120)
{
	const struct trigger trigger = {
		.name = "numa_balancing", .move = by_balancing,
		.lacks = balance_lacks, .some = true, .awake = true,
	};

	run(_metadata, &self->state, &trigger);
}

TEST_F_TIMEOUT(migrate_lost_write, promotion, 120)
{
	const struct trigger trigger = {
		.name = "promotion", .move = by_balancing,
		.lacks = promotion_lacks, .some = true, .one_way = true,
		.awake = true,
	};

	run(_metadata, &self->state, &trigger);
}

TEST_F_TIMEOUT(migrate_lost_write, damon, 120)
{
	const struct trigger trigger = {
		.name = "damon", .move = by_damon,
		.lacks = damon_lacks,
	};

	run(_metadata, &self->state, &trigger);
}

TEST_F_TIMEOUT(migrate_lost_write, mbind, 120)
{
	const struct trigger trigger = {
		.name = "mbind", .move = by_mbind,
	};

	run(_metadata, &self->state, &trigger);
}

TEST_F_TIMEOUT(migrate_lost_write, compaction, 120)
{
	const struct trigger trigger = {
		.name = "compaction", .move = by_compaction,
		.lacks = compaction_lacks, .prepare = make_holes, .frame = true,
	};

	run(_metadata, &self->state, &trigger);
}

TEST_F_TIMEOUT(migrate_lost_write, offline, 120)
{
	const struct trigger trigger = {
		.name = "offline", .move = by_offline, .lacks = offline_lacks,
		.frame = true, .some = true,
	};

	run(_metadata, &self->state, &trigger);
}

TEST_F_TIMEOUT(migrate_lost_write, soft_offline, 120)
{
	const struct trigger trigger = {
		.name = "soft_offline", .move = by_soft_offline,
		.lacks = soft_offline_lacks, .frame = true,
	};

	run(_metadata, &self->state, &trigger);
}

TEST_HARNESS_MAIN
