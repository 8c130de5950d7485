/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * How a test tells the device of lib/test_mmu_notifier.c what to do.
 *
 * Each open file of /dev/test_mmu_notifier is a device of its own. Calls come
 * in any order and from any thread; one that makes no sense fails and changes
 * nothing.
 *
 * A file can also keep a record of what the kernel says to the notifiers of a
 * process. It is a thing apart: neither needs the other.
 */
#ifndef _LIB_TEST_MMU_NOTIFIER_UAPI_H
#define _LIB_TEST_MMU_NOTIFIER_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

/*
 * The journal that the device writes, through each valid entry of its TLB: its
 * write number n, counted from 1, puts n into word n % SLOTS.
 */
#define TEST_MMU_NOTIFIER_SLOTS		512
#define TEST_MMU_NOTIFIER_BYTES		(TEST_MMU_NOTIFIER_SLOTS * 8)

#define TEST_MMU_NOTIFIER_MAX_ENTRIES	512
#define TEST_MMU_NOTIFIER_MAX_USECS	100000
#define TEST_MMU_NOTIFIER_MAX_EVENTS	65536

/**
 * struct test_mmu_notifier_show - fill an entry of the device's TLB
 * @address: (in) of a journal in the memory of this process, aligned to its
 *	size; anonymous memory that may be written to, and no hugetlb
 * @nr: (in) the number of the last write to it; the device counts on from there
 * @pfn: (out) the page frame that was found
 * @entry: (in) which entry; what it was is gone
 * @reserved: (in) 0
 */
struct test_mmu_notifier_show {
	__u64 address;
	__u64 nr;
	__u64 pfn;
	__u32 entry;
	__u32 reserved;
};

/**
 * struct test_mmu_notifier_state - what an entry of the device's TLB is
 * @nr: (out) the number of the last write; final once the entry is not valid
 * @pfn: (out) the page frame that was shown last
 * @invalidations: (out) how many times the kernel took the entry away
 * @stale: (out) how many times the page was found to have another owner while
 *	the entry was still valid; a real device writes into his memory then,
 *	and this one drops the entry
 * @start: (out) of the range that was invalidated when the entry was taken away
 *	the last time; 0, as is @end, if it was dropped
 * @end: (out) of the same
 * @entry: (in) which entry
 * @valid: (out) 1 if the device writes through it
 */
struct test_mmu_notifier_state {
	__u64 nr;
	__u64 pfn;
	__u64 invalidations;
	__u64 stale;
	__u64 start;
	__u64 end;
	__u32 entry;
	__u32 valid;
};

/**
 * struct test_mmu_notifier_slow_end - a second device, which takes its time
 * @usecs: (in) how long it sleeps at the end of an invalidation, 0 for not at
 *	all
 * @bytes: (in) only if the range has this many bytes: more than a huge page
 */
struct test_mmu_notifier_slow_end {
	__u64 usecs;
	__u64 bytes;
};

/**
 * struct test_mmu_notifier_record - what is to be recorded
 * @address: (in) calls of the notifiers of this process are, whose range has
 *	something in common with the @bytes from here
 * @bytes: (in) see there
 * @nr_events: (in) how many there is room for
 * @flags: (in) 0; (out) SEES_ATOMIC if the kernel knows whether it holds a
 *	spinlock: with CONFIG_PREEMPT_COUNT, which CONFIG_DEBUG_ATOMIC_SLEEP is
 *	one way to have
 */
struct test_mmu_notifier_record {
	__u64 address;
	__u64 bytes;
	__u32 nr_events;
	__u32 flags;
};

#define TEST_MMU_NOTIFIER_SEES_ATOMIC	1

/**
 * struct test_mmu_notifier_watch - begin a new record, and watch a page
 * @address: (in) of as many bytes as a journal has, and aligned like one, in
 *	memory of this process that is anonymous or of hugetlb: at each event
 *	the kernel puts the event's number n into word n % SLOTS here. What a
 *	migrated page has of these was there before it was copied.
 * @pfn: (out) the page frame that was found
 * @nr: (out) the number of the last event so far, of all records
 */
struct test_mmu_notifier_watch {
	__u64 address;
	__u64 pfn;
	__u64 nr;
};

/**
 * struct test_mmu_notifier_event - a call of a notifier; read(2) returns these
 * @nr: its number among the events of all records, from 1
 * @start: of its range
 * @end: of its range
 * @kind: which call
 * @flags: see below
 * @task: the thread that called
 * @watched: what the page tables have for the watched address
 */
struct test_mmu_notifier_event {
	__u64 nr;
	__u64 start;
	__u64 end;
	__u32 kind;
	__u32 flags;
	__u32 task;
	__u32 watched;
};

/* What is called: the start and the end of a range, and in between, or alone: */
#define TEST_MMU_NOTIFIER_RANGE_START	1
#define TEST_MMU_NOTIFIER_RANGE_END	2
/* ->invalidate_range(), or what took over from it in 6.6. */
#define TEST_MMU_NOTIFIER_INVALIDATE	3

#define TEST_MMU_NOTIFIER_ATOMIC	1	/* may not sleep: SEES_ATOMIC */
#define TEST_MMU_NOTIFIER_BLOCKABLE	2	/* and is allowed to */
#define TEST_MMU_NOTIFIER_STAMPED	4	/* the page was there */
/* Up to 6.5: the end of the range made this call, and nobody else. */
#define TEST_MMU_NOTIFIER_BY_END	8

#define TEST_MMU_NOTIFIER_UNKNOWN	0	/* the range is of another table */
#define TEST_MMU_NOTIFIER_NO_TABLE	1	/* the PUD has none */
#define TEST_MMU_NOTIFIER_EMPTY		2
#define TEST_MMU_NOTIFIER_PRESENT	3
#define TEST_MMU_NOTIFIER_OTHER		4	/* a migration entry, or poison */

/*
 * ATTACH	to the memory of this process, with so many entries
 * SHOW		fill an entry; -EAGAIN if the page does not keep still
 * READ		the state of an entry
 * START	writing, on this CPU, or on any for -1
 * STOP		writing; nothing is written after it returned
 * SLOW_END	see there; takes effect at once
 *
 * RECORD	from now on; once a file. The process may be gone when it is read
 * WATCH	see there; -ENXIO without RECORD, which was of the same process
 *
 * read(2) returns as many whole events as there are and as there is room for, 0
 * for none, and -EOVERFLOW after the last if there were more than fit.
 */
#define TEST_MMU_NOTIFIER_ATTACH	_IOW('M', 0xa0, __u32)
#define TEST_MMU_NOTIFIER_SHOW \
	_IOWR('M', 0xa1, struct test_mmu_notifier_show)
#define TEST_MMU_NOTIFIER_READ \
	_IOWR('M', 0xa2, struct test_mmu_notifier_state)
#define TEST_MMU_NOTIFIER_START		_IOW('M', 0xa3, __s32)
#define TEST_MMU_NOTIFIER_STOP		_IO('M', 0xa4)
#define TEST_MMU_NOTIFIER_SLOW_END \
	_IOW('M', 0xa5, struct test_mmu_notifier_slow_end)

#define TEST_MMU_NOTIFIER_RECORD \
	_IOWR('M', 0xa6, struct test_mmu_notifier_record)
#define TEST_MMU_NOTIFIER_WATCH \
	_IOWR('M', 0xa7, struct test_mmu_notifier_watch)

#endif /* _LIB_TEST_MMU_NOTIFIER_UAPI_H */
