/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Transparent huge pages: have the kernel give them to who asks for them, and
 * see whether it gave one.
 */
#ifndef _MIGRATE_THP_H
#define _MIGRATE_THP_H

#include <stdbool.h>
#include <stddef.h>

#define THP_DIR		"/sys/kernel/mm/transparent_hugepage/"

/*
 * Both return false where the kernel does not have that. The guardian restores
 * the setting.
 *
 * thp_set() has a file of THP_DIR say @value, whatever it says. thp_allow() is for
 * who does not mind others who have huge pages unasked: it has those get some who
 * ask by madvise(2), and changes nothing if they do already.
 */
bool thp_set(const char *name, const char *value);
bool thp_allow(void);

/*
 * Is the memory at @addr, of @size bytes, one page for the kernel too? It may be
 * part of a larger one. thp_flags_open() returns a descriptor for it, or -1.
 */
int thp_flags_open(void);
bool thp_is_one(int flags, const char *addr, size_t size);

#endif /* _MIGRATE_THP_H */
