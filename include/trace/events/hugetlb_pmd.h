/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM hugetlb_pmd

#if !defined(_TRACE_HUGETLB_PMD_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_HUGETLB_PMD_H

#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/tracepoint.h>

/* What follows is read several times, and can be defined but once. */
#ifndef __HUGETLB_PMD_DECLARE_ONCE_ONLY
#define __HUGETLB_PMD_DECLARE_ONCE_ONLY

/* Why a process no longer shares a PMD table. */
enum hugetlb_pmd_reason {
	HUGETLB_PMD_UNMAP,	/* munmap, exit, MADV_DONTNEED, truncation */
	HUGETLB_PMD_PROTECT,	/* mprotect, or protection for userfaultfd */
	HUGETLB_PMD_MREMAP,
	HUGETLB_PMD_SPLIT,	/* of the VMA, inside the table's range */
	HUGETLB_PMD_MIGRATION,	/* of one of the table's pages */
	HUGETLB_PMD_POISON,	/* one of the table's pages has failed */
	HUGETLB_PMD_UFFD,	/* registered with userfaultfd */
};

/*
 * The process that an mm is of, as user space knows it; 0 if that is not known.
 * The one that runs often is another: who migrates a page unshares the tables
 * of all who map it. Without CONFIG_MEMCG no mm has an owner. An mm that exits
 * has none either, and then it is current that tears it down.
 */
static inline pid_t hugetlb_pmd_pid(struct mm_struct *mm)
{
	pid_t pid = 0;
#ifdef CONFIG_MEMCG
	struct task_struct *owner;

	rcu_read_lock();
	owner = rcu_dereference(mm->owner);
	if (owner)
		pid = owner->tgid;
	rcu_read_unlock();
#endif
	if (!pid && (current->mm == mm || !atomic_read(&mm->mm_users)))
		pid = current->tgid;
	return pid;
}

#endif /* __HUGETLB_PMD_DECLARE_ONCE_ONLY */

TRACE_DEFINE_ENUM(HUGETLB_PMD_UNMAP);
TRACE_DEFINE_ENUM(HUGETLB_PMD_PROTECT);
TRACE_DEFINE_ENUM(HUGETLB_PMD_MREMAP);
TRACE_DEFINE_ENUM(HUGETLB_PMD_SPLIT);
TRACE_DEFINE_ENUM(HUGETLB_PMD_MIGRATION);
TRACE_DEFINE_ENUM(HUGETLB_PMD_POISON);
TRACE_DEFINE_ENUM(HUGETLB_PMD_UFFD);

#define show_hugetlb_pmd_reason(reason)			\
	__print_symbolic(reason,			\
		{ HUGETLB_PMD_UNMAP,	 "unmap" },	\
		{ HUGETLB_PMD_PROTECT,	 "protect" },	\
		{ HUGETLB_PMD_MREMAP,	 "mremap" },	\
		{ HUGETLB_PMD_SPLIT,	 "split" },	\
		{ HUGETLB_PMD_MIGRATION, "migration" },	\
		{ HUGETLB_PMD_POISON,	 "poison" },	\
		{ HUGETLB_PMD_UFFD,	 "userfaultfd" })

/* Where no table can be shared, there is nothing to see and no event. */
#undef TRACE_EVENT_HUGETLB_PMD
#ifdef CONFIG_HUGETLB_PMD_PAGE_TABLE_SHARING
#define TRACE_EVENT_HUGETLB_PMD TRACE_EVENT
#else
#define TRACE_EVENT_HUGETLB_PMD TRACE_EVENT_NOP
#endif

/*
 * @ptep is any entry of the table. "table_pfn" is the page frame of the table
 * itself, not of what it maps: the PUD entries of all who share it point there,
 * so the same number is the same table, in whichever process. "sharers" is how
 * many mappings have the table after the event, the first one included. A
 * process that maps the file twice may be two of them.
 *
 * At a share it can be too high for a moment: others are counted before they
 * share, also if they find then that another of their threads was faster. At
 * an unshare it is exact: i_mmap_rwsem is held for writing.
 */
TRACE_EVENT_HUGETLB_PMD(hugetlb_pmd_share,
			TP_PROTO(struct mm_struct *mm, unsigned long addr, pte_t *ptep),
			TP_ARGS(mm, addr, ptep),

			TP_STRUCT__entry(__field(pid_t, pid)
					 __field(unsigned long, addr)
					 __field(unsigned long, table_pfn)
					 __field(int, sharers)
			),

			TP_fast_assign(struct ptdesc *pt = virt_to_ptdesc(ptep);

				       __entry->pid = hugetlb_pmd_pid(mm);
				       __entry->addr = addr;
				       __entry->table_pfn = page_to_pfn(ptdesc_page(pt));
				       __entry->sharers = ptdesc_pmd_pts_count(pt) + 1;
			),

			TP_printk("pid=%d addr=0x%lx table_pfn=0x%lx sharers=%d",
				  __entry->pid, __entry->addr, __entry->table_pfn,
				  __entry->sharers)
);

TRACE_EVENT_HUGETLB_PMD(hugetlb_pmd_unshare,
			TP_PROTO(struct mm_struct *mm, unsigned long addr, pte_t *ptep,
				 enum hugetlb_pmd_reason reason),
			TP_ARGS(mm, addr, ptep, reason),

			TP_STRUCT__entry(__field(pid_t, pid)
					 __field(unsigned long, addr)
					 __field(unsigned long, table_pfn)
					 __field(int, sharers)
					 __field(int, reason)
			),

			TP_fast_assign(struct ptdesc *pt = virt_to_ptdesc(ptep);

				       __entry->pid = hugetlb_pmd_pid(mm);
				       __entry->addr = addr;
				       __entry->table_pfn = page_to_pfn(ptdesc_page(pt));
				       __entry->sharers = ptdesc_pmd_pts_count(pt) + 1;
				       __entry->reason = reason;
			),

			TP_printk("pid=%d addr=0x%lx table_pfn=0x%lx sharers=%d reason=%s",
				  __entry->pid, __entry->addr, __entry->table_pfn,
				  __entry->sharers,
				  show_hugetlb_pmd_reason(__entry->reason))
);

#endif /* _TRACE_HUGETLB_PMD_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
