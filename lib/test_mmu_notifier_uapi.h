/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * How a test tells the device of lib/test_mmu_notifier.c what to do.
 *
 * Each open file of /dev/test_mmu_notifier is a device of its own. Calls come
 * in any order and from any thread; one that makes no sense fails and changes
 * nothing.
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

/*
 * ATTACH	to the memory of this process, with so many entries
 * SHOW		fill an entry; -EAGAIN if the page does not keep still
 * READ		the state of an entry
 * START	writing, on this CPU, or on any for -1
 * STOP		writing; nothing is written after it returned
 * SLOW_END	see there; takes effect at once
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

#endif /* _LIB_TEST_MMU_NOTIFIER_UAPI_H */
