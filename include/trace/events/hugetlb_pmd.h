/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM hugetlb_pmd

#if !defined(_TRACE_HUGETLB_PMD_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_HUGETLB_PMD_H

#include <linux/mm.h>
#include <linux/tracepoint.h>

/* What follows is read several times, and an enum can be defined but once. */
#ifndef __HUGETLB_PMD_DECLARE_REASONS_ONCE_ONLY
#define __HUGETLB_PMD_DECLARE_REASONS_ONCE_ONLY

/* Why a process began to share a PMD table, or no longer does. */
enum hugetlb_pmd_reason {
	HUGETLB_PMD_FAULT,	/* a page was wanted: fault, GUP, UFFDIO_COPY */
	HUGETLB_PMD_UNMAP,	/* munmap, exit, MADV_DONTNEED, truncation */
	HUGETLB_PMD_MPROTECT,
	HUGETLB_PMD_MREMAP,
	HUGETLB_PMD_SPLIT,	/* of the VMA, inside the table's range */
	HUGETLB_PMD_MIGRATION,	/* of one of the table's pages */
	HUGETLB_PMD_POISON,	/* one of the table's pages has failed */
	HUGETLB_PMD_UFFD,	/* userfaultfd wants a table of its own */
};

#endif /* __HUGETLB_PMD_DECLARE_REASONS_ONCE_ONLY */

TRACE_DEFINE_ENUM(HUGETLB_PMD_FAULT);
TRACE_DEFINE_ENUM(HUGETLB_PMD_UNMAP);
TRACE_DEFINE_ENUM(HUGETLB_PMD_MPROTECT);
TRACE_DEFINE_ENUM(HUGETLB_PMD_MREMAP);
TRACE_DEFINE_ENUM(HUGETLB_PMD_SPLIT);
TRACE_DEFINE_ENUM(HUGETLB_PMD_MIGRATION);
TRACE_DEFINE_ENUM(HUGETLB_PMD_POISON);
TRACE_DEFINE_ENUM(HUGETLB_PMD_UFFD);

#define show_hugetlb_pmd_reason(reason)			\
	__print_symbolic(reason,			\
		{ HUGETLB_PMD_FAULT,	 "fault" },	\
		{ HUGETLB_PMD_UNMAP,	 "unmap" },	\
		{ HUGETLB_PMD_MPROTECT,	 "mprotect" },	\
		{ HUGETLB_PMD_MREMAP,	 "mremap" },	\
		{ HUGETLB_PMD_SPLIT,	 "split" },	\
		{ HUGETLB_PMD_MIGRATION, "migration" },	\
		{ HUGETLB_PMD_POISON,	 "poison" },	\
		{ HUGETLB_PMD_UFFD,	 "userfaultfd" })

/* Where no table can be shared, there is nothing to see and no event. */
#undef DEFINE_EVENT_HUGETLB_PMD
#ifdef CONFIG_HUGETLB_PMD_PAGE_TABLE_SHARING
#define DEFINE_EVENT_HUGETLB_PMD DEFINE_EVENT

/*
 * @ptep is any entry of the table. What is printed as "pmd_pfn", the page frame
 * of the table, is what the PUDs of all its sharers point to: the same number
 * is the same table, in whichever process. "sharers" are those that there are
 * after the event, the first user of the table included: after a share 2 or
 * more, after an unshare 1 or more.
 */
DECLARE_EVENT_CLASS(hugetlb_pmd,
		    TP_PROTO(struct mm_struct *mm, unsigned long addr,
			     pte_t *ptep, enum hugetlb_pmd_reason reason),
		    TP_ARGS(mm, addr, ptep, reason),

		    TP_STRUCT__entry(__field(struct mm_struct *, mm)
				     __field(unsigned long, addr)
				     __field(unsigned long, pmd_pfn)
				     __field(int, sharers)
				     __field(int, reason)
		    ),

		    TP_fast_assign(struct ptdesc *pt = virt_to_ptdesc(ptep);

				   __entry->mm = mm;
				   __entry->addr = addr;
				   __entry->pmd_pfn = page_to_pfn(ptdesc_page(pt));
				   __entry->sharers = ptdesc_pmd_pts_count(pt) + 1;
				   __entry->reason = reason;
		    ),

		    TP_printk("mm=%p addr=0x%lx pmd_pfn=0x%lx sharers=%d reason=%s",
			      __entry->mm, __entry->addr, __entry->pmd_pfn,
			      __entry->sharers,
			      show_hugetlb_pmd_reason(__entry->reason))
);
#else
#define DEFINE_EVENT_HUGETLB_PMD DEFINE_EVENT_NOP
#endif

DEFINE_EVENT_HUGETLB_PMD(hugetlb_pmd, hugetlb_pmd_share,
			 TP_PROTO(struct mm_struct *mm, unsigned long addr,
				  pte_t *ptep, enum hugetlb_pmd_reason reason),
			 TP_ARGS(mm, addr, ptep, reason)
);

DEFINE_EVENT_HUGETLB_PMD(hugetlb_pmd, hugetlb_pmd_unshare,
			 TP_PROTO(struct mm_struct *mm, unsigned long addr,
				  pte_t *ptep, enum hugetlb_pmd_reason reason),
			 TP_ARGS(mm, addr, ptep, reason)
);

#endif /* _TRACE_HUGETLB_PMD_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
