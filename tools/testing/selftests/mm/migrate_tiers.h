/* SPDX-License-Identifier: GPL-2.0 */
/*
 * NUMA balancing moves a page to the node of those who use it, one by one. It takes
 * write access away long before it moves a page: only who has got it back by then,
 * as another process of a file or another thread of a page of 64 KiB may, can lose
 * anything.
 *
 * On a machine with slower memory, reclaim demotes pages to it, and NUMA balancing,
 * in another mode, promotes those that are in use.
 */
#ifndef _MIGRATE_TIERS_H
#define _MIGRATE_TIERS_H

#include "migrate_triggers.h"

extern const struct trigger trigger_demotion, trigger_promotion;
extern const struct trigger trigger_numa_balancing;

#endif /* _MIGRATE_TIERS_H */
