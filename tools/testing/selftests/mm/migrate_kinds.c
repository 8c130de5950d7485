// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate_hugetlb.h"
#include "migrate_kinds.h"
#include "migrate_loop.h"
#include "migrate_mount.h"
#include "migrate_page.h"
#include "migrate_thp.h"
#include "vm_util.h"

#define NR_HUGE		4	/* pages for all writers */
#define NR_SMALL	16	/* those of 64 KiB */
#define SMALL		(64 << 10)
#define NR_BASE		32	/* pages for each */
#define SPARE		2	/* huge pages of the pool beside those, on each node */
#define PATTERN		0x5a00000000000000ull	/* no word of a journal */
#define DISK_BYTES	(64l << 20)

#define NEEDS_THP	\
	"needs CONFIG_TRANSPARENT_HUGEPAGE, and of shmem (since 4.8)"

const struct kind kind_anon = { .name = "anon" };
const struct kind kind_anon_mthp = {
	.name = "anon_mthp", .pages = SMALL_HUGE,
	.setting = "hugepages-64kB/enabled", .value = "madvise",
	.needs = "needs huge pages of 64 KiB (since 6.8)",
};

const struct kind kind_anon_thp = {
	.name = "anon_thp", .pages = HUGE,
	.setting = "enabled", .value = "madvise", .needs = NEEDS_THP,
};

const struct kind kind_shmem = { .name = "shmem", .file = true };
const struct kind kind_shmem_mthp = {
	.name = "shmem_mthp", .pages = SMALL_HUGE, .file = true,
	.setting = "hugepages-64kB/shmem_enabled", .value = "advise",
	.needs = "needs huge pages of 64 KiB of shmem (since 6.11)",
};

const struct kind kind_shmem_thp = {
	.name = "shmem_thp", .pages = HUGE, .file = true,
	.setting = "shmem_enabled", .value = "advise", .needs = NEEDS_THP,
};

const struct kind kind_file = { .name = "file", .file = true, .disk = true };
/* The file system decides: it is enough that the kernel has them. */
const struct kind kind_file_thp = {
	.name = "file_thp", .pages = HUGE, .file = true, .disk = true,
	.setting = "enabled", .needs = "needs CONFIG_TRANSPARENT_HUGEPAGE",
};

const struct kind kind_hugetlb = {
	.name = "hugetlb", .pages = HUGE, .file = true, .hugetlb = true,
};

/* Mappings. */

int range_map(const struct range *r, char *addr)
{
	int flags = r->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	int error, advice = r->kind->pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE;

	if (r->kind->hugetlb) {
		/* The same flags for all, or they share no table. */
		error = map_pud(r->fd, addr);
		return !error && madvise(addr, r->mapped, MADV_DONTFORK) ?
		       errno : error;
	}
	if (mmap(addr, r->mapped, PROT_READ | PROT_WRITE, MAP_FIXED | flags,
		 r->fd, 0) == MAP_FAILED)
		return errno;
	return madvise(addr, r->mapped, advice) && r->kind->pages ? errno : 0;
}

void range_unmap(const struct range *r, char *addr)
{
	unmap_pud(addr);
}

static int map_range(const struct memory *mem, char *addr)
{
	return range_map((const struct range *)mem, addr);
}

static void unmap_range(const struct memory *mem, char *addr)
{
	range_unmap((const struct range *)mem, addr);
}

/* Huge pages. */

const char *range_lacks(const struct range *r)
{
	const struct kind *kind = r->kind;
	char path[128];

	if (kind->pages == SMALL_HUGE && psize() >= SMALL)
		return kind->needs;
	if (!kind->setting)
		return NULL;
	if (kind->value)
		return thp_set(kind->setting, kind->value) ? NULL : kind->needs;
	snprintf(path, sizeof(path), THP_DIR "%s", kind->setting);
	return access(path, F_OK) ? kind->needs : NULL;
}

bool range_is_huge(const struct range *r)
{
	bool huge;
	int i, fd;

	/* Nothing splits them. */
	if (r->kind->hugetlb)
		return true;
	fd = thp_flags_open();
	huge = fd >= 0;
	for (i = 0; huge && i < r->nr_pages; i++)
		huge = thp_is_one(fd, r->pages[i], r->memory.page);
	if (fd >= 0)
		close(fd);
	return huge;
}

const char *range_not_huge(const struct range *r)
{
	static char why[160];

	if (access("/proc/kpageflags", R_OK))
		return "needs CONFIG_PROC_PAGE_MONITOR";
	snprintf(why, sizeof(why),
		 "no huge page of %zu KiB to be had: free some memory, or compact it%s",
		 r->memory.page >> 10, r->kind->disk ?
		 "; many file systems have none" : "");
	return why;
}

/* Contents. */

uint64_t range_first_word(const struct range *r, size_t offset)
{
	return r->journals[offset / JOURNAL_BYTES] ? 0 :
	       PATTERN | offset / sizeof(uint64_t);
}

/*
 * Have pages: one that nobody has written to has no memory of its own. A file
 * system that has huge pages has them for large writes. Returns 0 or -errno.
 */
static int fill(const struct range *r)
{
	size_t size = r->memory.page, page, off;
	uint64_t *words = malloc(size);
	int error = words ? 0 : ENOMEM;

	for (page = 0; !error && page < r->size; page += size) {
		for (off = 0; off < size; off += sizeof(*words))
			words[off / sizeof(*words)] =
				range_first_word(r, page + off);
		if (r->kind->disk)
			error = pwrite(r->fd, words, size, page) ==
				(ssize_t)size ? 0 : errno ?: EIO;
		if (!error)
			memcpy(r->own + page, words, size);
	}
	free(words);
	return -error;
}

static int give_back(const struct range *r)
{
	return madvise(r->own, r->size,
		       r->kind->file ? MADV_REMOVE : MADV_DONTNEED);
}

/*
 * Pages of 64 KiB that did not move at once may have been split, to be moved as
 * small ones.
 */
void range_renew(const struct range *r)
{
	char *copy = malloc(r->size);

	if (!copy)
		return;
	memcpy(copy, r->own, r->size);
	give_back(r);
	memcpy(r->own, copy, r->size);
	free(copy);
}

const char *range_refill(const struct range *r)
{
	if (give_back(r))
		return "the file cannot give its pages back";
	if (fill(r))
		return "the memory cannot be had again";
	return r->kind->pages && !range_is_huge(r) ? range_not_huge(r) : NULL;
}

/* Files. */

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

/* A disk that is in memory: a descriptor or -errno. */
static int open_loop(char path[LOOP_PATH_LEN])
{
	int memory = syscall(SYS_memfd_create, "disk", 0), loop;

	if (memory < 0)
		return -errno;
	loop = ftruncate(memory, DISK_BYTES) ? -errno :
					       loop_open(memory, path, 0);
	close(memory);
	return loop;
}

/* A file that is not in memory alone. Returns a descriptor or -errno. */
static int open_in_loop(void)
{
	char path[LOOP_PATH_LEN], options[48];
	int loop, dir = -ENODEV, fd, error;

	loop = open_loop(path);
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

/* These return NULL, or a line that says why there is no file. */

static const char *open_memfd(struct range *r)
{
	static char why[200];

	r->fd = syscall(SYS_memfd_create, "migrate_lost_write", 0);
	if (r->fd >= 0)
		return NULL;
	snprintf(why, sizeof(why), "needs memfd_create(2): %s", strerror(errno));
	return why;
}

static const char *open_disk(struct range *r)
{
	char name[] = "migrate_lost_write-XXXXXX";
	static char why[200];
	struct statfs fs;

	r->fd = mkstemp(name);
	if (r->fd < 0) {
		snprintf(why, sizeof(why),
			 "needs a directory that can be written to, to be run in: %s",
			 strerror(errno));
		return why;
	}
	unlink(name);
	if (fstatfs(r->fd, &fs))
		return "cannot tell of which file system the directory is";
	if (fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC)
		return NULL;
	close(r->fd);
	r->fd = open_in_loop();
	if (r->fd >= 0)
		return NULL;
	snprintf(why, sizeof(why),
		 "the directory is in memory, as shmem is, and there is no loop device with ext4, mke2fs, and fsopen(2) (since 5.2): %s",
		 strerror(-r->fd));
	return why;
}

/* Who touches a page that the pool does not have is killed: have them all before. */
static const char *open_hugetlb(struct range *r, const int nodes[2])
{
	return pool_lacks(nodes, 2, NR_HUGE + SPARE) ?:
	       file_lacks(&r->fd, r->mapped) ?:
	       populate_lacks(r->fd, NULL, r->nr_pages);
}

static const char *open_file(struct range *r)
{
	const char *why = r->kind->disk ? open_disk(r) : open_memfd(r);
	static char too_large[128];

	if (why || !ftruncate(r->fd, r->size))
		return why;
	snprintf(too_large, sizeof(too_large),
		 "no file of %zu MiB, the file system may be full: %s",
		 r->size >> 20, strerror(errno));
	return too_large;
}

/* From the beginning to the end. */

void range_init(struct range *r, const struct kind *kind)
{
	memset(r, 0, sizeof(*r));
	r->kind = kind;
	r->fd = -1;
}

const char *range_open(struct range *r, const struct writers *w,
		       const int nodes[2])
{
	enum size pages = r->kind->pages;
	int i, j;

	r->memory.page = pages == HUGE ? pmd_size() :
			 pages == SMALL_HUGE ? SMALL : psize();
	r->memory.nr_pages = pages == HUGE ? NR_HUGE :
			     pages == SMALL_HUGE ? NR_SMALL : NR_BASE;
	r->memory.shares_table = r->kind->hugetlb;
	r->nr_pages = r->memory.nr_pages * (pages ? 1 : w->nr);
	r->size = r->nr_pages * r->memory.page;
	r->mapped = r->kind->hugetlb ? pud_size() : r->size;
	r->own = writers_own_addr(w);
	for (i = 0; i < r->nr_pages; i++)
		r->pages[i] = r->own + i * r->memory.page;

	r->journals = calloc(r->size / JOURNAL_BYTES, sizeof(bool));
	if (!r->journals)
		return "no memory";
	for (i = 0; i < r->memory.nr_pages; i++)
		for (j = 0; j < w->nr; j++)
			r->journals[writers_offset(w, i, j) / JOURNAL_BYTES] =
				true;
	if (!r->kind->file) {
		r->memory.there = r->own;
		return NULL;
	}
	r->memory.map = map_range;
	r->memory.unmap = unmap_range;
	return r->kind->hugetlb ? open_hugetlb(r, nodes) : open_file(r);
}

const char *range_fill(const struct range *r)
{
	static char why[96];
	int error = fill(r);

	if (!error)
		return r->kind->pages && !range_is_huge(r) ? range_not_huge(r) :
							     NULL;
	snprintf(why, sizeof(why), "cannot have %zu MiB: %s", r->size >> 20,
		 strerror(-error));
	return why;
}

void range_free(struct range *r)
{
	if (r->fd >= 0)
		close(r->fd);
	free(r->journals);
}
