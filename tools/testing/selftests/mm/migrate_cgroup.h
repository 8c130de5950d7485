/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A cgroup that the test is alone in. It is removed when the test is gone, however
 * it went, and what was changed for it is changed back.
 */
#ifndef _MIGRATE_CGROUP_H
#define _MIGRATE_CGROUP_H

#include <stdbool.h>

/*
 * Become the only one in a cgroup with a controller. Returns NULL, or a line that
 * says why not: @need if there is no such controller. group_lacks_v1() does so with
 * a cgroup of version 1, whose controller is cpuset: memory is to follow its nodes.
 * group_leave() is for FIXTURE_TEARDOWN: there may be no group.
 */
const char *group_lacks(const char *controller, const char *need);
const char *group_lacks_v1(const char *need);
void group_leave(void);

/* A file of that cgroup: whether it can be written to, and 0 or an error number. */
bool group_has(const char *name);
int group_write(const char *name, const char *value);

#endif /* _MIGRATE_CGROUP_H */
