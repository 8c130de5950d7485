// SPDX-License-Identifier: GPL-2.0
#include "migrate_eject.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kselftest.h"
#include "migrate_guard.h"
#include "migrate_memory.h"
#include "migrate_page.h"
#include "migrate_qmp.h"
#include "migrate_util.h"
#include "vm_util.h"

#define DEVICES		"/sys/bus/acpi/devices/"
#define MEMORY		"/sys/devices/system/memory"
#define NODES		"/sys/devices/system/node/"
/* It is there if the kernel handles such devices. */
#define HOTPLUG		"/sys/firmware/acpi/hotplug/memory/enabled"
#define BACKEND		"eject0"	/* of QEMU's */
#define MAX_NODES	1024
#define STA_ENABLED	2		/* in _STA of the device */

#define PLUG_MS		10000
#define FILL_MS		3000
/*
 * Pages that all CPUs write to may have to be tried for long, all the more where
 * QEMU's four CPUs have two to run on.
 */
#define EJECT_MS	30000

/* The DIMM. */
static struct {
	int qmp;		/* the monitor that plugs it; 0: none */
	long long bytes;	/* that the monitor says it has */
	int node;
	char name[32];		/* of the device; "" if not yet known */
	long first, last;	/* its memory blocks */
	bool plugged;		/* and all of it is movable memory */
	int error;		/* or why not */
	long ejects, done;
} dimm;

static void device_file(char *path, size_t len, const char *name)
{
	snprintf(path, len, DEVICES "%s/%s", dimm.name, name);
}

static void block_path(char *path, size_t len, long block, const char *name)
{
	snprintf(path, len, MEMORY "/memory%ld%s", block, name);
}

/* The name of the device that brought a block, or NULL if none did. */
static const char *device_of(long block, char *buf, size_t len)
{
	char path[96], *slash;
	ssize_t nr;

	block_path(path, sizeof(path), block, "/firmware_node");
	nr = readlink(path, buf, len - 1);
	if (nr < 0)
		return NULL;
	buf[nr] = '\0';
	slash = strrchr(buf, '/');
	return slash ? slash + 1 : buf;
}

static bool block_on(long block, int node)
{
	char path[96], name[24];

	snprintf(name, sizeof(name), "/node%d", node);
	block_path(path, sizeof(path), block, name);
	return !access(path, F_OK);
}

/*
 * Find the blocks of the device, and return how many there are. If the test has
 * plugged it, and does not know its name, it is that whose blocks are on the node.
 */
static long find_blocks(void)
{
	struct dirent *entry;
	char link[PATH_MAX];
	long block, nr = 0;
	const char *name;
	DIR *dir;

	dimm.first = LONG_MAX;
	dimm.last = -1;
	dir = opendir(MEMORY);
	while (dir && (entry = readdir(dir))) {
		if (sscanf(entry->d_name, "memory%ld", &block) != 1)
			continue;
		name = device_of(block, link, sizeof(link));
		if (!name)
			continue;
		if (!*dimm.name && block_on(block, dimm.node))
			snprintf(dimm.name, sizeof(dimm.name), "%.*s",
				 (int)sizeof(dimm.name) - 1, name);
		if (strcmp(name, dimm.name))
			continue;
		nr++;
		dimm.first = block < dimm.first ? block : dimm.first;
		dimm.last = block > dimm.last ? block : dimm.last;
	}
	if (dir)
		closedir(dir);
	return nr;
}

/* Is all memory of the device online, and nothing but movable? */
static bool is_movable(void)
{
	char path[96], state[16], zones[64];
	long block;

	for (block = dimm.first; block <= dimm.last; block++) {
		block_path(path, sizeof(path), block, "/state");
		if (file_read(path, state, sizeof(state)) ||
		    strcmp(state, "online"))
			return false;
		block_path(path, sizeof(path), block, "/valid_zones");
		/* Others may follow in old kernels, which it is not in. */
		if (file_read(path, zones, sizeof(zones)) ||
		    strncmp(zones, "Movable", strlen("Movable")))
			return false;
	}
	return true;
}

/* Ask QEMU for the DIMM, if it is not there. Returns 0 or -errno. */
static int ask_for_dimm(void)
{
	uint64_t start = cycles_clock();
	char command[192], line[1024];
	bool asked = find_blocks() > 0;

	snprintf(command, sizeof(command),
		 "{'execute':'device_add','arguments':{%s,%s,%s,'node':%d}}",
		 "'driver':'pc-dimm'", "'id':'dimm-" BACKEND "'",
		 "'memdev':'" BACKEND "'", dimm.node);
	while (find_blocks() * block_bytes() < dimm.bytes) {
		if (ms_since(start) >= PLUG_MS)
			return asked ? -ETIMEDOUT : -EIO;
		/* The last one may not be quite gone. */
		if (!asked)
			asked = qmp_ask(dimm.qmp, command, line, sizeof(line));
		usleep(20 * 1000);
	}
	return 0;
}

/* Have the DIMM, with all memory of it movable. Returns 0 or -errno. */
static int plug(void)
{
	long block, nr;
	int ret;

	dimm.plugged = false;
	ret = dimm.qmp ? ask_for_dimm() : 0;
	if (ret)
		return ret;
	nr = find_blocks();
	if (!nr)
		return -ENODEV;
	/* With a hole, nobody could say whose pages are between them. */
	if (nr != dimm.last - dimm.first + 1)
		return -ERANGE;
	/* What is not the test's is left as it is. */
	for (block = dimm.first; dimm.qmp && block <= dimm.last; block++)
		block_online(block);
	if (!is_movable())
		return -EBUSY;
	dimm.plugged = true;
	return 0;
}

static bool eject_holds(int64_t frame)
{
	int64_t each = block_bytes() / (long)psize();

	return frame >= dimm.first * each && frame < (dimm.last + 1) * each;
}

static int pages_held(const struct range *r)
{
	int i, nr = 0;

	for (i = 0; i < r->nr_pages; i++)
		nr += eject_holds(page_pfn(0, r->pages[i]));
	return nr;
}

/* Every block is gone, and the firmware says that the device is, too. */
static bool is_gone(void)
{
	char path[96];
	long block, sta;

	for (block = dimm.first; block <= dimm.last; block++) {
		block_path(path, sizeof(path), block, "");
		if (!access(path, F_OK) || errno != ENOENT)
			return false;
	}
	device_file(path, sizeof(path), "status");
	sta = file_read_long(path);
	return sta < 0 ? sta == -ENOENT : !(sta & STA_ENABLED);
}

/*
 * The kernel does it later, in a thread of its own, and says to nobody how that
 * ends.
 */
static int eject(void)
{
	uint64_t start = cycles_clock();
	char path[96];
	int ret;

	device_file(path, sizeof(path), "eject");
	ret = file_write(path, "1");
	while (!ret && !is_gone()) {
		if (ms_since(start) >= EJECT_MS)
			return -ETIMEDOUT;
		usleep(2000);
	}
	return ret;
}

/* The first node that may have memory, and has none; -1 if there is none. */
static int free_node(void)
{
	char path[64], list[256], has[256], *at, *end;
	bool taken[MAX_NODES] = {};
	long first, last;
	int pass;

	snprintf(path, sizeof(path), NODES "has_memory");
	if (file_read(path, has, sizeof(has)))
		return -1;
	snprintf(path, sizeof(path), NODES "possible");
	if (file_read(path, list, sizeof(list)))
		return -1;
	for (pass = 0; pass < 2; pass++) {
		for (at = pass ? list : has; *at; at = *end ? end + 1 : end) {
			first = strtol(at, &end, 10);
			last = *end == '-' ? strtol(end + 1, &end, 10) : first;
			if (end == at || first < 0 || last >= MAX_NODES)
				return -1;
			for (; first <= last; first++) {
				if (pass && !taken[first])
					return first;
				taken[first] = true;
			}
		}
	}
	return -1;
}

static const char *monitor_lacks(const char *path)
{
	static const char size[] =
		"{'execute':'qom-get','arguments':{'path':'/objects/" BACKEND
		"','property':'size'}}";
	static char why[128];
	char line[1024], *at;

	dimm.qmp = qmp_open(path);
	if (dimm.qmp <= 0) {
		dimm.qmp = 0;
		snprintf(why, sizeof(why), "no monitor of QEMU's answers at %s",
			 path);
		return why;
	}
	if (qmp_ask(dimm.qmp, size, line, sizeof(line))) {
		at = strstr(line, "\"return\":");
		dimm.bytes = at ? strtoll(at + strlen("\"return\":"), NULL, 10) : 0;
	}
	if (dimm.bytes <= 0)
		return "QEMU has no memory for a DIMM: -object memory-backend-ram,id=" BACKEND;
	dimm.node = free_node();
	return dimm.node < 0 ? "needs a node without memory" : NULL;
}

/* The node of what is there; false if it is not to be seen. */
static bool find_node(void)
{
	for (dimm.node = 0; dimm.node < MAX_NODES; dimm.node++)
		if (block_on(dimm.first, dimm.node))
			return true;
	return false;
}

static const char *plug_lacks(int error)
{
	static char why[128];
	const char *what;

	switch (error) {
	case -ENODEV:
		what = "no ACPI memory device that can be ejected";
		break;
	case -EBUSY:
		what = "its memory is not all online and movable";
		break;
	case -ERANGE:
		what = "its memory is not in one piece";
		break;
	default:
		what = "QEMU plugs no DIMM";
	}
	snprintf(why, sizeof(why), "%s: %s", *dimm.name ? dimm.name : BACKEND,
		 what);
	return why;
}

static const char *eject_lacks(struct mover *m)
{
	const char *monitor = getenv("MIGRATE_EJECT_QMP"), *why;
	const char *name = getenv("MIGRATE_EJECT");
	char path[96];
	long handled;
	int ret;

	if (!monitor && !name)
		return "takes memory away by ACPI: MIGRATE_EJECT=PNP0C80:nn allows it for one";
	handled = file_read_long(HOTPLUG);
	if (handled <= 0)
		return handled ? "needs CONFIG_ACPI_HOTPLUG_MEMORY, and ACPI" :
				 "the hotplug of memory is off: " HOTPLUG;
	if (block_bytes() < 0)
		return "no memory blocks: needs CONFIG_MEMORY_HOTPLUG";
	if (monitor) {
		why = monitor_lacks(monitor);
		if (why)
			return why;
	} else {
		snprintf(dimm.name, sizeof(dimm.name), "%s", name);
	}
	ret = plug();
	if (!ret || ret == -EBUSY) {
		device_file(path, sizeof(path), "eject");
		/* A test that is killed leaves none of its memory behind. */
		if (dimm.qmp && guard_undo(path, "1"))
			return "the guardian can note no more";
		if (access(path, W_OK))
			ret = -ENODEV;
	}
	if (!ret && !block_removable(dimm.first))
		return "memory cannot be taken offline: needs CONFIG_MEMORY_HOTREMOVE";
	if (!ret && !dimm.qmp && !find_node())
		ret = -ENODEV;
	if (ret)
		return plug_lacks(ret);
	/* It is from the first node that pages go. */
	if (m->nodes[1] == dimm.node)
		m->nodes[1] = m->nodes[0];
	m->nodes[0] = dimm.node;
	return NULL;
}

static void eject_prepare(const struct mover *m)
{
	uint64_t start = cycles_clock();

	dimm.error = plug();
	if (dimm.error)
		return;
	/* Cpusets come to know of a new node somewhat later than others. */
	do {
		range_move(m->range, dimm.node);
		if (pages_held(m->range) == m->range->nr_pages)
			return;
		usleep(20 * 1000);
	} while (ms_since(start) < FILL_MS);
}

static int by_eject(const struct mover *m, int to)
{
	int ret;

	if (!dimm.plugged)
		return dimm.error ?: -ENODEV;
	/* It would be no use to take it. */
	if (!pages_held(m->range))
		return -ENXIO;
	dimm.ejects++;
	ret = eject();
	if (!ret) {
		dimm.plugged = false;
		dimm.done++;
	}
	return ret;
}

static void eject_tell(const struct mover *m)
{
	ksft_print_msg("%s: ejected %ld of %ld times\n", dimm.name, dimm.done,
		       dimm.ejects);
}

void eject_end(void)
{
	if (!dimm.qmp)
		return;
	if (find_blocks() && eject())
		ksft_print_msg("%s: cannot be ejected in the end\n", dimm.name);
	close(dimm.qmp);
	dimm.qmp = 0;
}

const struct trigger trigger_acpi_eject = {
	.name = "acpi_eject", .move = by_eject, .lacks = eject_lacks,
	.prepare = eject_prepare, .tell = eject_tell, .holds = eject_holds,
	.frame = true, .one_way = true,
};
