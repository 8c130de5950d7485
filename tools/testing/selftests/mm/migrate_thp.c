// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kselftest.h"
#include "migrate_guard.h"
#include "migrate_page.h"
#include "migrate_thp.h"
#include "migrate_util.h"
#include "vm_util.h"

#define PAGE_IS_HEAD	0x8000	/* in /proc/kpageflags */
#define PAGE_IS_TAIL	0x10000

/* What a file of THP_DIR says is in brackets: always [madvise] never */
static bool read_mode(const char *path, char *mode, size_t len)
{
	char line[96], *word, *end;

	if (file_read(path, line, sizeof(line)))
		return false;
	word = strchr(line, '[');
	end = word ? strchr(word, ']') : NULL;
	if (!end)
		return false;
	*end = 0;
	snprintf(mode, len, "%s", word + 1);
	return true;
}

bool thp_set(const char *name, const char *value)
{
	char path[128], old[32];

	snprintf(path, sizeof(path), THP_DIR "%s", name);
	return read_mode(path, old, sizeof(old)) && !guard_undo(path, old) &&
	       !file_write(path, value);
}

bool thp_allow(void)
{
	char mode[32];

	if (!read_mode(THP_DIR "enabled", mode, sizeof(mode)))
		return false;
	return strcmp(mode, "never") || thp_set("enabled", "madvise");
}

static bool is_compound(int flags, int64_t pfn, size_t nr)
{
	uint64_t words[512];
	size_t i, some, done;

	for (done = 0; done < nr; done += some) {
		some = nr - done < ARRAY_SIZE(words) ? nr - done :
						       ARRAY_SIZE(words);
		if (pread(flags, words, some * sizeof(*words),
			  (pfn + done) * sizeof(*words)) !=
		    (ssize_t)(some * sizeof(*words)))
			return false;
		for (i = 0; i < some; i++)
			if (!(words[i] & (done + i ? PAGE_IS_TAIL :
						     PAGE_IS_HEAD)))
				return false;
	}
	return true;
}

int thp_flags_open(void)
{
	return open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
}

bool thp_is_one(int flags, const char *addr, size_t size)
{
	size_t nr = size / psize();
	int64_t pfn;

	/* Migration may have left it to be mapped again. */
	__atomic_load_n(addr, __ATOMIC_RELAXED);
	pfn = page_pfn(0, (void *)addr);
	return pfn > 0 && !(pfn % nr) && is_compound(flags, pfn, nr);
}
