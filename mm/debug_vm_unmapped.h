/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_DEBUG_VM_UNMAPPED_H
#define _MM_DEBUG_VM_UNMAPPED_H

#include <linux/jump_label.h>
#include <linux/types.h>

struct anon_vma;
struct folio;
struct mm_struct;

#ifdef CONFIG_DEBUG_VM_UNMAPPED

/* An mm whose page tables mapped a folio, before it was unmapped. */
struct unmapped_mm {
	u64 id;			/* of no other mm, ever */
	u64 gen;		/* how often its TLBs were flushed by then */
	struct mm_struct *mm;	/* to be printed, it may be gone */
	unsigned long address;
	bool shared;		/* through a PMD table that others have too */
	bool flushed;		/* since then, as a walk has seen */
};

/* All of them. */
struct unmapped_note {
	struct unmapped_mm *mms;	/* a page of them, or NULL */
	unsigned int nr;
	unsigned int lost;		/* mms that there was no room for */
	struct anon_vma *anon_vma;	/* with a reference, or NULL */
	bool locked;			/* the caller has the rmap lock */
};

/* A place where something is wrong. */
struct unmapped_place {
	struct mm_struct *mm;	/* to be printed, it may be gone */
	unsigned long address;
	bool shared;
};

/* One walk of all VMAs that may map a folio, and what it found. */
struct unmapped_walk {
	/* Set by the caller. */
	struct unmapped_note *note;	/* to fill or to compare with, or NULL */
	bool fill;
	bool locked;			/* the caller has the rmap lock */
	/* What came of it. */
	bool contended;			/* the lock was not to be had: nothing seen */
	unsigned int vmas;		/* seen */
	unsigned int mapped;		/* of these, have an entry for the folio */
	unsigned int unflushed;		/* had one, and were not flushed since */
	unsigned int unknown;		/* had one, and are being flushed now */
	unsigned int cpus;		/* run such an mm, which was flushed */
	unsigned int behind;		/* of these, were not flushed */
	int behind_cpu;			/* the first */
	struct unmapped_place where_mapped, where_unflushed, where_behind;
};

DECLARE_STATIC_KEY_FALSE(unmapped_key);

static inline bool unmapped_armed(void)
{
	return static_branch_unlikely(&unmapped_key);
}

void unmapped_note(struct folio *folio, struct unmapped_note *note, bool locked);
void unmapped_check(struct folio *folio, struct unmapped_note *note,
		    bool put_off);
void unmapped_forget(struct unmapped_note *note);
void __unmapped_look(struct folio *folio, struct anon_vma *anon_vma);
void unmapped_walk(struct folio *folio, struct unmapped_walk *walk);
bool unmapped_compare_cpus(struct unmapped_note *note,
			   struct unmapped_walk *walk);

#else /* !CONFIG_DEBUG_VM_UNMAPPED */

struct unmapped_note {
};

static inline bool unmapped_armed(void)
{
	return false;
}

static inline void unmapped_note(struct folio *folio,
				 struct unmapped_note *note, bool locked)
{
}

static inline void unmapped_check(struct folio *folio,
				  struct unmapped_note *note, bool put_off)
{
}

static inline void __unmapped_look(struct folio *folio,
				   struct anon_vma *anon_vma)
{
}

#endif /* CONFIG_DEBUG_VM_UNMAPPED */

/*
 * Before @folio is copied: nothing may map it, whatever its map count says.
 * For an anonymous folio the caller holds a reference on @anon_vma, or there is
 * none, and then nothing can be looked at.
 */
static inline void unmapped_look(struct folio *folio, struct anon_vma *anon_vma)
{
	if (unmapped_armed())
		__unmapped_look(folio, anon_vma);
}

#endif /* _MM_DEBUG_VM_UNMAPPED_H */
