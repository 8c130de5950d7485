/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A new mount of a file system that is nowhere: a descriptor of its root, or
 * -errno. It goes with the last file that is open in it, so a test that is killed
 * leaves nothing behind. @options as mount(8) has them behind -o, or NULL.
 */
#ifndef _MIGRATE_MOUNT_H
#define _MIGRATE_MOUNT_H

int mount_nowhere(const char *type, const char *options);

#endif /* _MIGRATE_MOUNT_H */
