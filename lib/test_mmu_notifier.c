// SPDX-License-Identifier: GPL-2.0
/*
 * A device that shares the page tables of a process, made of software.
 *
 * The likes of an IOMMU with PASIDs walk the page tables that the CPUs use, and
 * keep what they find in a TLB of their own. All they want of the MMU notifiers
 * is to be told when to empty that TLB, so they have ->invalidate_range() and
 * neither start nor end: what the page tables say is right, they need not be
 * kept from looking. This one has such a TLB, which a test fills address by
 * address, and a thread that writes through it, without end, what can be
 * checked afterwards: in each page that it has an entry for, a journal of
 * numbered writes. Once ->invalidate_range() has returned, nothing is written
 * through the entries in the range any more, and the number of the last write
 * is final. If the journal does not have it then, it was copied too early.
 *
 * A TLB holds no reference to the pages in it. Neither does this one, or their
 * migration would fail, and find nothing. Where the kernel is right, no page is
 * freed before ->invalidate_range() was called for it. The kernels that this is
 * for may be wrong, and the test is to tell and not to corrupt memory: before
 * each write there is a look at the page, whether it is the one that was shown.
 *
 * The same file has a second use, with which it writes down what the kernel says
 * to the notifiers of a process: every call, its range, what the page tables
 * have at that moment, and, in the page that is being watched, the number of the
 * call. Of the numbers that a migrated page has, the calls came before it was
 * copied.
 *
 * See tools/testing/selftests/mm/thp_numa_notifier.c for the first and
 * hugetlb_pmd_notifier.c, in the same folder, for the second.
 */
#include <linux/atomic.h>
#include <linux/capability.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/irqflags.h>
#include <linux/kthread.h>
#include <linux/memory_hotplug.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "test_mmu_notifier_uapi.h"

static void tmn_device_invalidate(struct mmu_notifier *mn, struct mm_struct *mm,
				  unsigned long start, unsigned long end);
static void tmn_device_release(struct mmu_notifier *mn, struct mm_struct *mm);
static void tmn_slow_end(struct mmu_notifier *mn, unsigned long start,
			 unsigned long end);
static void tmn_record_start(struct mmu_notifier *mn, unsigned long start,
			     unsigned long end, bool blockable);
static void tmn_record_end(struct mmu_notifier *mn, unsigned long start,
			   unsigned long end, bool blockable);
static void tmn_record_invalidate(struct mmu_notifier *mn, struct mm_struct *mm,
				  unsigned long start, unsigned long end);

#ifndef IN_TREE
/*
 * This file is built, as it is, into each kernel between 4.4 and the newest
 * whose migration is to be compared with that of another. What differs between
 * versions is from here to the line below, and one place that needs SINCE_6_6.
 * A kernel tree has but one version: what it has no use for, this comment among
 * it, is left out of the patch that adds the file.
 */
#include <linux/version.h>

#ifndef CONFIG_MMU_NOTIFIER
#error "needs CONFIG_MMU_NOTIFIER: select it by anything that uses it"
#endif

#define SINCE_4_12	(KERNEL_VERSION(4, 12, 0) <= LINUX_VERSION_CODE)
#define SINCE_4_13	(KERNEL_VERSION(4, 13, 0) <= LINUX_VERSION_CODE)
#define SINCE_4_19	(KERNEL_VERSION(4, 19, 0) <= LINUX_VERSION_CODE)
#define SINCE_5_0	(KERNEL_VERSION(5, 0, 0) <= LINUX_VERSION_CODE)
#define SINCE_5_2	(KERNEL_VERSION(5, 2, 0) <= LINUX_VERSION_CODE)
#define SINCE_5_17	(KERNEL_VERSION(5, 17, 0) <= LINUX_VERSION_CODE)
#define SINCE_6_6	(KERNEL_VERSION(6, 6, 0) <= LINUX_VERSION_CODE)
#endif

#if !SINCE_4_13
/*
 * What unmaps a small page by its reverse mapping calls this and not the other:
 * without it, the page would be freed under an entry.
 */
static void tmn_device_invalidate_page(struct mmu_notifier *mn,
				       struct mm_struct *mm, unsigned long address)
{
	tmn_device_invalidate(mn, mm, address, address + PAGE_SIZE);
}

static void tmn_record_invalidate_page(struct mmu_notifier *mn,
				       struct mm_struct *mm, unsigned long address)
{
	tmn_record_invalidate(mn, mm, address, address + PAGE_SIZE);
}
#endif

static const struct mmu_notifier_ops tmn_device_ops = {
	.release = tmn_device_release,
#if SINCE_6_6
	.arch_invalidate_secondary_tlbs = tmn_device_invalidate,
#else
	/* The same by its first name. The end of a range calls it as well. */
	.invalidate_range = tmn_device_invalidate,
#endif
#if !SINCE_4_13
	.invalidate_page = tmn_device_invalidate_page,
#endif
};

#if !SINCE_5_2
#define mmu_notifier_range_blockable(range) ((range)->blockable)
#endif

#if SINCE_5_0
static void tmn_slow_range_end(struct mmu_notifier *mn,
			       const struct mmu_notifier_range *range)
{
	if (mmu_notifier_range_blockable(range))
		tmn_slow_end(mn, range->start, range->end);
}

static int tmn_record_range_start(struct mmu_notifier *mn,
				  const struct mmu_notifier_range *range)
{
	bool blockable = mmu_notifier_range_blockable(range);

	tmn_record_start(mn, range->start, range->end, blockable);
	return 0;
}

static void tmn_record_range_end(struct mmu_notifier *mn,
				 const struct mmu_notifier_range *range)
{
	bool blockable = mmu_notifier_range_blockable(range);

	tmn_record_end(mn, range->start, range->end, blockable);
}
#else
static void tmn_slow_range_end(struct mmu_notifier *mn, struct mm_struct *mm,
			       unsigned long start, unsigned long end)
{
	tmn_slow_end(mn, start, end);
}

#if SINCE_4_19
static int tmn_record_range_start(struct mmu_notifier *mn, struct mm_struct *mm,
				  unsigned long start, unsigned long end,
				  bool blockable)
{
	tmn_record_start(mn, start, end, blockable);
	return 0;
}
#else
static void tmn_record_range_start(struct mmu_notifier *mn, struct mm_struct *mm,
				   unsigned long start, unsigned long end)
{
	tmn_record_start(mn, start, end, true);
}
#endif

static void tmn_record_range_end(struct mmu_notifier *mn, struct mm_struct *mm,
				 unsigned long start, unsigned long end)
{
	tmn_record_end(mn, start, end, true);
}
#endif

static const struct mmu_notifier_ops tmn_record_ops = {
	.invalidate_range_start = tmn_record_range_start,
	.invalidate_range_end = tmn_record_range_end,
};

/* Of its own, for nobody may have all three. */
static const struct mmu_notifier_ops tmn_record_tlb_ops = {
#if SINCE_6_6
	.arch_invalidate_secondary_tlbs = tmn_record_invalidate,
#else
	.invalidate_range = tmn_record_invalidate,
#endif
#if !SINCE_4_13
	.invalidate_page = tmn_record_invalidate_page,
#endif
};

#if SINCE_4_12
static pud_t *tmn_pud_at(struct mm_struct *mm, unsigned long address)
{
	pgd_t *pgd = pgd_offset(mm, address);
	p4d_t *p4d;

	if (pgd_none(*pgd) || pgd_bad(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, address);
	if (p4d_none(*p4d) || p4d_bad(*p4d))
		return NULL;
	return pud_offset(p4d, address);
}
#else
static pud_t *tmn_pud_at(struct mm_struct *mm, unsigned long address)
{
	pgd_t *pgd = pgd_offset(mm, address);

	if (pgd_none(*pgd) || pgd_bad(*pgd))
		return NULL;
	return pud_offset(pgd, address);
}
#endif

#if SINCE_5_17
static void *tmn_mapping_of(struct page *head)
{
	return READ_ONCE(page_folio(head)->mapping);
}

static pgoff_t tmn_index_of(struct page *head)
{
	return READ_ONCE(page_folio(head)->index);
}
#else
static void *tmn_mapping_of(struct page *head)
{
	return READ_ONCE(head->mapping);
}

static pgoff_t tmn_index_of(struct page *head)
{
	return READ_ONCE(head->index);
}
#endif

#ifndef IN_TREE
/* ---- up to here ---------------------------------------------------------- */
#endif

/* Of the TLB. */
struct tmn_entry {
	spinlock_t lock;	/* all of it */
	u64 *journal;		/* where to write; NULL if it is not valid */
	unsigned long address;	/* in the process */
	unsigned long pfn;	/* 0 if it never was */
	void *mapping;		/* of the page, and its place in there: */
	pgoff_t index;		/* both are another owner's once it is freed */
	u64 nr;			/* of the last write */
	u64 invalidations;
	u64 stale;
	u64 start;		/* of the last of these */
	u64 end;
};

/* What was said to the notifiers of a process. */
struct tmn_record {
	spinlock_t lock;	/* all but what is set once */
	struct mmu_notifier mn;
	struct mmu_notifier tlb_mn;	/* the first to be called, see tmn_record() */
	struct mm_struct *mm;	/* set once, when the next four are */
	struct test_mmu_notifier_event *events;
	unsigned int max_events;
	unsigned long start;	/* calls for what is not in here are of no interest */
	unsigned long end;
	unsigned int nr_events;
	unsigned int nr_read;
	bool overflow;
	unsigned long watched;	/* page frame; 0 if none is */
	u64 *stamps;		/* in it, with: */
	void *mapping;
	pgoff_t index;
	unsigned long address;	/* of these in the process */
};

struct tmn_device {
	struct mutex lock;	/* all but the entries */
	struct mmu_notifier mn;
	struct mmu_notifier slow_mn;
	struct mm_struct *mm;	/* set once, when all of the above is */
	struct tmn_entry *entries;
	unsigned int nr_entries;
	atomic_t generation;	/* of the TLB: how many invalidations there were */
	struct task_struct *writer;
	bool slow;		/* @slow_mn is registered */
	unsigned long slow_usecs;
	unsigned long slow_bytes;
	struct tmn_record record;
};

/*
 * Invalidation. It is called with page table locks held, and waits for no more
 * than one write for each entry.
 *
 * The generation comes first: who fills an entry has looked at the page tables
 * before, and looks at the generation again with the lock of the entry. Either
 * it sees a new one and starts over, or its entry is there to be taken away.
 * And before the generation come the page tables, which our caller has changed:
 * who sees the new generation must not find the old entry.
 */
static void tmn_invalidate(struct tmn_device *dev, unsigned long start,
			   unsigned long end)
{
	unsigned int i;

	/* Pairs with the smp_rmb() of tmn_try_to_show(). */
	smp_mb__before_atomic();
	atomic_inc(&dev->generation);
	for (i = 0; i < dev->nr_entries; i++) {
		struct tmn_entry *e = &dev->entries[i];

		spin_lock(&e->lock);
		if (e->journal && e->address < end &&
		    e->address + TEST_MMU_NOTIFIER_BYTES > start) {
			e->journal = NULL;
			e->invalidations++;
			e->start = start;
			e->end = end;
		}
		spin_unlock(&e->lock);
	}
}

static void tmn_device_invalidate(struct mmu_notifier *mn, struct mm_struct *mm,
				  unsigned long start, unsigned long end)
{
	tmn_invalidate(container_of(mn, struct tmn_device, mn), start, end);
}

/*
 * The process is gone, or the file is closed. In the first case its pages are
 * freed next, and nothing is said of each of them any more. No entry can be
 * filled again: that takes a thread of the process.
 */
static void tmn_device_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	tmn_invalidate(container_of(mn, struct tmn_device, mn), 0, ULONG_MAX);
}

/*
 * The second device. At the end of a range, a notifier's ->invalidate_range()
 * comes right before its ->invalidate_range_end(), and then it is the next
 * notifier's turn, the one that was registered last being the first: they are
 * put at the head of the list, in 4.4 as in 7.3. This one is registered when it
 * is first told to be slow, and that is after the one above. So the first device
 * keeps its entries while this one sleeps, as it would if others had work to do.
 *
 * At the end of a range a notifier may sleep, with one exception by mistake:
 * set_pmd_migration_entry() of 4.14 and 4.18 calls it with the page table lock
 * held, for one huge page. So this never sleeps for as little as that.
 */
static void tmn_slow_end(struct mmu_notifier *mn, unsigned long start,
			 unsigned long end)
{
	struct tmn_device *dev = container_of(mn, struct tmn_device, slow_mn);
	unsigned long usecs = READ_ONCE(dev->slow_usecs);

	if (usecs && end - start >= READ_ONCE(dev->slow_bytes))
		usleep_range(usecs, usecs + usecs / 8 + 1);
}

static const struct mmu_notifier_ops tmn_slow_ops = {
	.invalidate_range_end = tmn_slow_range_end,
};

/* Writing. */

/*
 * The page of a frame that we hold no reference to. Its memory may have been
 * taken offline and removed since, and then there is no struct page any more.
 * As wherever the kernel asks this, nothing keeps it from being removed right
 * now; but that takes much longer than a look with a spinlock held.
 */
static struct page *tmn_page(unsigned long pfn)
{
#if SINCE_4_13
	return pfn_to_online_page(pfn);
#else
	return pfn_valid(pfn) ? pfn_to_page(pfn) : NULL;
#endif
}

/*
 * The head of the compound page that a frame is in, with a reference; NULL if
 * it has none.
 */
static struct page *tmn_try_get_head(unsigned long pfn)
{
	struct page *page = tmn_page(pfn), *head;

	if (!page)
		return NULL;
	head = compound_head(page);
	if (!get_page_unless_zero(head))
		return NULL;
	/* It may have been split, or be part of another, since. */
	if (compound_head(page) == head)
		return head;
	put_page(head);
	return NULL;
}

/* Still the page that it was when it had this mapping and this index? */
static bool tmn_same_page(unsigned long pfn, struct page *head, void *mapping,
			  pgoff_t index)
{
	return tmn_mapping_of(head) == mapping &&
	       tmn_index_of(head) + (pfn - page_to_pfn(head)) == index;
}

static void tmn_write_entry(struct tmn_entry *e)
{
	struct page *head;

	spin_lock(&e->lock);
	if (!e->journal)
		goto unlock;
	/*
	 * The page may be frozen for a moment, which is no harm and a chance
	 * missed; or free, if the kernel is wrong.
	 */
	head = tmn_try_get_head(e->pfn);
	if (!head)
		goto unlock;
	if (tmn_same_page(e->pfn, head, e->mapping, e->index)) {
		e->nr++;
		WRITE_ONCE(e->journal[e->nr % TEST_MMU_NOTIFIER_SLOTS], e->nr);
	} else {
		/* It has another owner: the kernel is wrong. */
		e->journal = NULL;
		e->stale++;
		e->start = 0;
		e->end = 0;
	}
	/* With the lock held: none is left after an invalidation. */
	put_page(head);
unlock:
	spin_unlock(&e->lock);
}

static int tmn_writer(void *data)
{
	struct tmn_device *dev = data;
	unsigned int i;

	while (!kthread_should_stop()) {
		for (i = 0; i < dev->nr_entries; i++)
			tmn_write_entry(&dev->entries[i]);
		/*
		 * Not cond_resched(): if nobody wants this CPU, that is no
		 * quiescent state for RCU in all versions.
		 */
		schedule();
	}
	return 0;
}

/*
 * The record. Numbers are those of all records together: they tell what came
 * first, whosever memory it was about.
 */
static atomic64_t tmn_last_event = ATOMIC64_INIT(0);

/*
 * What the page tables have for the watched address. They are looked at without
 * a lock, as GUP-fast does: with interrupts disabled, so that whoever frees a
 * table, or unshares one, waits for us. What we find may be old when we return.
 * In a test nobody else is at work on these tables.
 */
static u32 tmn_look_up(struct tmn_record *rec, unsigned long start,
		       unsigned long end)
{
	unsigned long table = rec->address & PUD_MASK;
	u32 found = TEST_MMU_NOTIFIER_NO_TABLE;
	unsigned long flags;
	pud_t *pudp, pud;
	pmd_t pmd;

	if (!rec->watched || start >= table + PUD_SIZE || end <= table)
		return TEST_MMU_NOTIFIER_UNKNOWN;
	local_irq_save(flags);
	pudp = tmn_pud_at(rec->mm, rec->address);
	if (!pudp)
		goto restore;
	pud = READ_ONCE(*pudp);
	if (pud_none(pud) || pud_bad(pud))
		goto restore;
	pmd = READ_ONCE(*pmd_offset(&pud, rec->address));
	/* An entry of hugetlb is that of a page, one level up. */
	if (pmd_none(pmd))
		found = TEST_MMU_NOTIFIER_EMPTY;
	else if (pte_present(__pte(pmd_val(pmd))))
		found = TEST_MMU_NOTIFIER_PRESENT;
	else
		found = TEST_MMU_NOTIFIER_OTHER;
restore:
	local_irq_restore(flags);
	return found;
}

/*
 * Leave the number of the event in the page, as a device would that may still
 * write to it. Returns whether the page was there to be written to.
 */
static bool tmn_stamp(struct tmn_record *rec, u64 nr)
{
	struct page *head;
	bool same;

	if (!rec->watched)
		return false;
	head = tmn_try_get_head(rec->watched);
	if (!head)
		return false;
	same = tmn_same_page(rec->watched, head, rec->mapping, rec->index);
	if (same)
		WRITE_ONCE(rec->stamps[nr % TEST_MMU_NOTIFIER_SLOTS], nr);
	put_page(head);
	return same;
}

static void tmn_note(struct tmn_record *rec, u32 kind, unsigned long start,
		     unsigned long end, bool blockable)
{
	/* Before we take a lock of our own. */
	bool atomic = preempt_count() || irqs_disabled();
	struct test_mmu_notifier_event *event;

	if (start >= rec->end || end <= rec->start)
		return;
	spin_lock(&rec->lock);
	if (rec->nr_events == rec->max_events) {
		rec->overflow = true;
		goto unlock;
	}
	event = &rec->events[rec->nr_events];
	memset(event, 0, sizeof(*event));
	event->nr = atomic64_inc_return(&tmn_last_event);
	event->start = start;
	event->end = end;
	event->kind = kind;
	event->task = task_pid_nr(current);
	event->watched = tmn_look_up(rec, start, end);
	if (atomic)
		event->flags |= TEST_MMU_NOTIFIER_ATOMIC;
	if (blockable)
		event->flags |= TEST_MMU_NOTIFIER_BLOCKABLE;
	if (tmn_stamp(rec, event->nr))
		event->flags |= TEST_MMU_NOTIFIER_STAMPED;
#if !SINCE_6_6
	/* The end of a range calls ->invalidate_range() as well, right before. */
	if (kind == TEST_MMU_NOTIFIER_RANGE_END && rec->nr_events) {
		struct test_mmu_notifier_event *previous = event - 1;

		if (previous->kind == TEST_MMU_NOTIFIER_INVALIDATE &&
		    previous->task == event->task &&
		    previous->start == start && previous->end == end)
			previous->flags |= TEST_MMU_NOTIFIER_BY_END;
	}
#endif
	rec->nr_events++;
unlock:
	spin_unlock(&rec->lock);
}

static void tmn_record_start(struct mmu_notifier *mn, unsigned long start,
			     unsigned long end, bool blockable)
{
	tmn_note(container_of(mn, struct tmn_record, mn), TEST_MMU_NOTIFIER_RANGE_START,
		 start, end, blockable);
}

static void tmn_record_end(struct mmu_notifier *mn, unsigned long start,
			   unsigned long end, bool blockable)
{
	tmn_note(container_of(mn, struct tmn_record, mn), TEST_MMU_NOTIFIER_RANGE_END,
		 start, end, blockable);
}

static void tmn_record_invalidate(struct mmu_notifier *mn, struct mm_struct *mm,
				  unsigned long start, unsigned long end)
{
	tmn_note(container_of(mn, struct tmn_record, tlb_mn),
		 TEST_MMU_NOTIFIER_INVALIDATE, start, end, false);
}

static int tmn_record(struct tmn_record *rec, struct test_mmu_notifier_record *how)
{
	int ret;

	if (!how->nr_events || how->flags ||
	    how->nr_events > TEST_MMU_NOTIFIER_MAX_EVENTS ||
	    !how->bytes || how->address + how->bytes < how->address ||
	    how->address + how->bytes != (unsigned long)(how->address + how->bytes))
		return -EINVAL;
	if (rec->mm)
		return -EBUSY;

	rec->events = vzalloc(how->nr_events * sizeof(*rec->events));
	if (!rec->events)
		return -ENOMEM;
	rec->max_events = how->nr_events;
	rec->start = how->address;
	rec->end = how->address + how->bytes;
	rec->mn.ops = &tmn_record_ops;
	rec->tlb_mn.ops = &tmn_record_tlb_ops;
	/* Nobody is called before it is registered. */
	rec->mm = current->mm;
	ret = mmu_notifier_register(&rec->mn, rec->mm);
	if (ret)
		goto out;
	/*
	 * The last is the first to be called, see tmn_slow_end(): what the end of
	 * a range says to the TLBs is noted before the end itself.
	 */
	ret = mmu_notifier_register(&rec->tlb_mn, rec->mm);
	if (ret)
		goto out_mn;
	if (IS_ENABLED(CONFIG_PREEMPT_COUNT))
		how->flags |= TEST_MMU_NOTIFIER_SEES_ATOMIC;
	return 0;

out_mn:
	mmu_notifier_unregister(&rec->mn, rec->mm);
out:
	rec->mm = NULL;
	vfree(rec->events);
	rec->events = NULL;
	return ret;
}

static int tmn_watch(struct tmn_record *rec, struct test_mmu_notifier_watch *place)
{
	unsigned long address = place->address;
	struct page *page, *head;
	int got;

	if (!rec->mm)
		return -ENXIO;
	if (rec->mm != current->mm)
		return -EPERM;
	if (address != place->address || address % TEST_MMU_NOTIFIER_BYTES)
		return -EINVAL;
	/* FOLL_WRITE is 1, which says the same up to 5.1: a bool for writing. */
	got = get_user_pages_fast(address & PAGE_MASK, 1, FOLL_WRITE, &page);
	if (got != 1)
		return got < 0 ? got : -EFAULT;
	head = compound_head(page);
	/* That of a file with a disk would have to be made dirty. */
	if (PageHighMem(page) || (!PageAnon(head) && !PageHuge(head))) {
		put_page(page);
		return -EINVAL;
	}

	spin_lock(&rec->lock);
	rec->watched = page_to_pfn(page);
	rec->stamps = page_address(page) + offset_in_page(address);
	rec->mapping = tmn_mapping_of(head);
	rec->index = tmn_index_of(head) + (page - head);
	rec->address = address;
	rec->nr_events = 0;
	rec->nr_read = 0;
	rec->overflow = false;
	spin_unlock(&rec->lock);
	place->pfn = rec->watched;
	place->nr = atomic64_read(&tmn_last_event);
	put_page(page);
	return 0;
}

static void tmn_forget(struct tmn_record *rec)
{
	if (!rec->mm)
		return;
	mmu_notifier_unregister(&rec->tlb_mn, rec->mm);
	mmu_notifier_unregister(&rec->mn, rec->mm);
	vfree(rec->events);
}

/* What the test asks for. */

static int tmn_attach(struct tmn_device *dev, unsigned int nr)
{
	unsigned int i;
	int ret;

	if (!nr || nr > TEST_MMU_NOTIFIER_MAX_ENTRIES)
		return -EINVAL;
	if (dev->mm)
		return -EBUSY;

	dev->entries = kcalloc(nr, sizeof(*dev->entries), GFP_KERNEL);
	if (!dev->entries)
		return -ENOMEM;
	for (i = 0; i < nr; i++)
		spin_lock_init(&dev->entries[i].lock);
	dev->nr_entries = nr;
	dev->mn.ops = &tmn_device_ops;
	ret = mmu_notifier_register(&dev->mn, current->mm);
	if (ret) {
		kfree(dev->entries);
		dev->entries = NULL;
		dev->nr_entries = 0;
		return ret;
	}
	/*
	 * Pairs with tmn_find_entry(): who sees it sees the entries. It lives as
	 * long as the notifier is registered.
	 */
	smp_store_release(&dev->mm, current->mm);
	return 0;
}

static struct tmn_entry *tmn_find_entry(struct tmn_device *dev, unsigned int nr)
{
	struct mm_struct *mm;

	/* Pairs with tmn_attach(). */
	mm = smp_load_acquire(&dev->mm);
	if (!mm)
		return ERR_PTR(-ENXIO);
	if (nr >= dev->nr_entries)
		return ERR_PTR(-EINVAL);
	return &dev->entries[nr];
}

static int tmn_try_to_show(struct tmn_device *dev, struct tmn_entry *e,
			   struct test_mmu_notifier_show *show)
{
	unsigned long address = show->address;
	struct page *page, *head;
	int generation, got, ret = -EAGAIN;

	generation = atomic_read(&dev->generation);
	/* Before the page tables, see tmn_invalidate(). */
	smp_rmb();
	/* FOLL_WRITE is 1, which says the same up to 5.1: a bool for writing. */
	got = get_user_pages_fast(address & PAGE_MASK, 1, FOLL_WRITE, &page);
	if (got != 1)
		return got < 0 ? got : -EFAULT;
	head = compound_head(page);
	/*
	 * A file's page would have to be made dirty after each write, and high
	 * memory has no address.
	 */
	if (!PageAnon(head) || PageHighMem(page)) {
		put_page(page);
		return -EINVAL;
	}

	spin_lock(&e->lock);
	if (atomic_read(&dev->generation) == generation) {
		e->journal = page_address(page) + offset_in_page(address);
		e->address = address;
		e->mapping = tmn_mapping_of(head);
		e->index = tmn_index_of(head) + (page - head);
		e->pfn = page_to_pfn(page);
		e->nr = show->nr;
		show->pfn = e->pfn;
		ret = 0;
	}
	/* With the lock held: none is left when the device begins to write. */
	put_page(page);
	spin_unlock(&e->lock);
	return ret;
}

static int tmn_show(struct tmn_device *dev, struct test_mmu_notifier_show *show)
{
	struct tmn_entry *e = tmn_find_entry(dev, show->entry);
	int tries, ret = -EAGAIN;

	if (IS_ERR(e))
		return PTR_ERR(e);
	if (dev->mm != current->mm)
		return -EPERM;
	if (show->reserved || show->address != (unsigned long)show->address ||
	    show->address % TEST_MMU_NOTIFIER_BYTES)
		return -EINVAL;
	for (tries = 0; tries < 100 && ret == -EAGAIN; tries++) {
		ret = tmn_try_to_show(dev, e, show);
		cond_resched();
	}
	return ret;
}

static int tmn_read_state(struct tmn_device *dev,
			  struct test_mmu_notifier_state *state)
{
	struct tmn_entry *e = tmn_find_entry(dev, state->entry);

	if (IS_ERR(e))
		return PTR_ERR(e);
	spin_lock(&e->lock);
	state->valid = !!e->journal;
	state->nr = e->nr;
	state->pfn = e->pfn;
	state->invalidations = e->invalidations;
	state->stale = e->stale;
	state->start = e->start;
	state->end = e->end;
	spin_unlock(&e->lock);
	return 0;
}

static int tmn_start(struct tmn_device *dev, int cpu)
{
	struct task_struct *task;

	if (!dev->mm)
		return -ENXIO;
	if (dev->writer)
		return -EBUSY;
	if (cpu != -1 &&
	    (cpu < 0 || cpu >= (int)nr_cpu_ids || !cpu_online(cpu)))
		return -EINVAL;
	task = kthread_create(tmn_writer, dev, "test_mmu_dev");
	if (IS_ERR(task))
		return PTR_ERR(task);
	if (cpu != -1)
		kthread_bind(task, cpu);
	dev->writer = task;
	wake_up_process(task);
	return 0;
}

static void tmn_stop(struct tmn_device *dev)
{
	if (dev->writer)
		kthread_stop(dev->writer);
	dev->writer = NULL;
}

static int tmn_set_slow_end(struct tmn_device *dev,
			    const struct test_mmu_notifier_slow_end *slow)
{
	int ret;

	if (slow->usecs > TEST_MMU_NOTIFIER_MAX_USECS ||
	    slow->bytes <= PMD_SIZE ||
	    slow->bytes != (unsigned long)slow->bytes)
		return -EINVAL;
	if (!dev->mm)
		return -ENXIO;
	if (!dev->slow) {
		/* The mm of a device that is attached may be another's. */
		if (dev->mm != current->mm)
			return -EPERM;
		dev->slow_mn.ops = &tmn_slow_ops;
		ret = mmu_notifier_register(&dev->slow_mn, dev->mm);
		if (ret)
			return ret;
		dev->slow = true;
	}
	WRITE_ONCE(dev->slow_bytes, slow->bytes);
	WRITE_ONCE(dev->slow_usecs, slow->usecs);
	return 0;
}

/* For what excludes each other. */
static int tmn_locked_ioctl(struct tmn_device *dev, unsigned int cmd,
			    void __user *argp)
{
	struct test_mmu_notifier_slow_end slow = { };
	struct test_mmu_notifier_record how = { };
	struct test_mmu_notifier_watch place = { };
	u32 nr = 0;
	s32 cpu = 0;
	int ret = 0;

	if (cmd == TEST_MMU_NOTIFIER_ATTACH &&
	    copy_from_user(&nr, argp, sizeof(nr)))
		return -EFAULT;
	if (cmd == TEST_MMU_NOTIFIER_START &&
	    copy_from_user(&cpu, argp, sizeof(cpu)))
		return -EFAULT;
	if (cmd == TEST_MMU_NOTIFIER_SLOW_END &&
	    copy_from_user(&slow, argp, sizeof(slow)))
		return -EFAULT;
	if (cmd == TEST_MMU_NOTIFIER_RECORD &&
	    copy_from_user(&how, argp, sizeof(how)))
		return -EFAULT;
	if (cmd == TEST_MMU_NOTIFIER_WATCH &&
	    copy_from_user(&place, argp, sizeof(place)))
		return -EFAULT;

	mutex_lock(&dev->lock);
	switch (cmd) {
	case TEST_MMU_NOTIFIER_ATTACH:
		ret = tmn_attach(dev, nr);
		break;
	case TEST_MMU_NOTIFIER_START:
		ret = tmn_start(dev, cpu);
		break;
	case TEST_MMU_NOTIFIER_STOP:
		tmn_stop(dev);
		break;
	case TEST_MMU_NOTIFIER_SLOW_END:
		ret = tmn_set_slow_end(dev, &slow);
		break;
	case TEST_MMU_NOTIFIER_RECORD:
		ret = tmn_record(&dev->record, &how);
		break;
	case TEST_MMU_NOTIFIER_WATCH:
		ret = tmn_watch(&dev->record, &place);
		break;
	default:
		ret = -ENOTTY;
	}
	mutex_unlock(&dev->lock);
	if (ret)
		return ret;
	if (cmd == TEST_MMU_NOTIFIER_RECORD &&
	    copy_to_user(argp, &how, sizeof(how)))
		return -EFAULT;
	if (cmd == TEST_MMU_NOTIFIER_WATCH &&
	    copy_to_user(argp, &place, sizeof(place)))
		return -EFAULT;
	return 0;
}

static long tmn_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct tmn_device *dev = file->private_data;
	void __user *argp = (void __user *)arg;
	struct test_mmu_notifier_state state;
	struct test_mmu_notifier_show place;
	int ret;

	/* Without the mutex: a page is shown by whoever moves it, at any time. */
	switch (cmd) {
	case TEST_MMU_NOTIFIER_SHOW:
		if (copy_from_user(&place, argp, sizeof(place)))
			return -EFAULT;
		ret = tmn_show(dev, &place);
		if (!ret && copy_to_user(argp, &place, sizeof(place)))
			ret = -EFAULT;
		return ret;
	case TEST_MMU_NOTIFIER_READ:
		if (copy_from_user(&state, argp, sizeof(state)))
			return -EFAULT;
		ret = tmn_read_state(dev, &state);
		if (!ret && copy_to_user(argp, &state, sizeof(state)))
			ret = -EFAULT;
		return ret;
	}
	return tmn_locked_ioctl(dev, cmd, argp);
}

/* The events that are not read yet, as many as there is room for. */
static ssize_t tmn_read(struct file *file, char __user *buf, size_t len,
			loff_t *pos)
{
	struct tmn_device *dev = file->private_data;
	struct tmn_record *rec = &dev->record;
	struct test_mmu_notifier_event event;
	ssize_t done = 0;
	bool some;

	mutex_lock(&dev->lock);
	if (!rec->mm)
		done = -ENXIO;
	while (done >= 0 && len - done >= sizeof(event)) {
		spin_lock(&rec->lock);
		some = rec->nr_read < rec->nr_events;
		if (some)
			event = rec->events[rec->nr_read++];
		else if (rec->overflow && !done)
			done = -EOVERFLOW;
		spin_unlock(&rec->lock);
		if (!some)
			break;
		if (copy_to_user(buf + done, &event, sizeof(event)))
			done = -EFAULT;
		else
			done += sizeof(event);
	}
	mutex_unlock(&dev->lock);
	return done;
}

static int tmn_new(struct file *file)
{
	struct tmn_device *dev = kzalloc(sizeof(*dev), GFP_KERNEL);

	if (!dev)
		return -ENOMEM;
	mutex_init(&dev->lock);
	spin_lock_init(&dev->record.lock);
	file->private_data = dev;
	return 0;
}

static int tmn_open(struct inode *inode, struct file *file)
{
	/* It writes to pages that it holds no reference to. */
	return capable(CAP_SYS_ADMIN) ? tmn_new(file) : -EPERM;
}

/*
 * Nobody uses the file any more, so nothing is running but the writer and the
 * notifiers. The process may be gone or not: mmu_notifier_unregister() waits for
 * a ->release() that is running and calls it if there was none, and each
 * registration kept the mm_struct.
 */
static int tmn_release(struct inode *inode, struct file *file)
{
	struct tmn_device *dev = file->private_data;

	tmn_stop(dev);
	tmn_forget(&dev->record);
	if (dev->slow)
		mmu_notifier_unregister(&dev->slow_mn, dev->mm);
	if (dev->mm)
		mmu_notifier_unregister(&dev->mn, dev->mm);
	kfree(dev->entries);
	kfree(dev);
	return 0;
}

static const struct file_operations tmn_fops = {
	.owner = THIS_MODULE,
	.open = tmn_open,
	.release = tmn_release,
	.unlocked_ioctl = tmn_ioctl,
	.read = tmn_read,
};

static struct miscdevice tmn_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "test_mmu_notifier",
	.fops = &tmn_fops,
	.mode = 0600,
};

static int __init test_mmu_notifier_init(void)
{
	return misc_register(&tmn_misc);
}

static void __exit test_mmu_notifier_exit(void)
{
	misc_deregister(&tmn_misc);
}

module_init(test_mmu_notifier_init);
module_exit(test_mmu_notifier_exit);
MODULE_DESCRIPTION("A device that shares page tables, for tests of MMU notifiers");
MODULE_LICENSE("GPL");
