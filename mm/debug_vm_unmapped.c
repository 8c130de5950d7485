// SPDX-License-Identifier: GPL-2.0
/*
 * Is a folio really unmapped when migration says so?
 *
 * Migration unmaps a folio, copies it, and maps the copy. What is written to the
 * old folio after that is lost, and nothing notices. Migration goes by the map
 * count, which counts entries in page tables. That is not the same as the CPUs
 * that can reach the folio:
 *
 * - The PMD table of a hugetlb mapping may be shared by many processes. It
 *   counts once. When its one entry is replaced by a migration entry, the count
 *   is 0 and the page tables are right, for all of them. The TLBs of those who
 *   were not flushed are not.
 *
 * - A count that was decremented once too often is 0 while an entry is left.
 *
 * So this looks at two things, with no regard to the count:
 *
 * mapped	No VMA that the reverse map knows has an entry for the folio. All
 *		are visited, in the same way as migration does it.
 *
 * unflushed	Each mm that had an entry before the folio was unmapped has been
 *		flushed since. This needs a count of flushes for each mm, which
 *		x86 has (tlb_gen). It is incremented after an entry has changed and
 *		before CPUs are told, also where a flush is put off (see
 *		arch_tlbbatch_add_pending()). If it is the same as before the walk
 *		that unmapped the folio, nobody has flushed that mm since. If it is
 *		not, something else may have been flushed. So what is reported is
 *		wrong for certain, but not all that is wrong is reported.
 *
 * behind	Where an mm has been flushed, each CPU that runs it now has flushed
 *		its TLB for it since. x86 keeps how far each CPU has got. What a CPU
 *		says of itself is right only between two switches of its mm, so a
 *		CPU that seems to be behind is asked once more, by an interrupt. A
 *		CPU in lazy TLB mode, or with another mm, flushes before it uses
 *		this one again. As with mms, some other flush hides a missing one.
 *
 * What is not looked at is counted, in debugfs.
 *
 * Locks. The folio is locked, so nobody maps it: a fault locks it first, and
 * fork copies only what the parent has mapped. No mmap_lock is needed and none
 * may be held for long: migration runs under mmap_lock or a VMA lock for reading
 * (NUMA hinting faults, move_pages()), or without either (compaction, memory
 * offlining). Visiting a VMA takes what any walk of the reverse map takes:
 *
 * - files: i_mmap_rwsem for reading, which try_to_migrate() and
 *   remove_migration_ptes() take with the same folio locks held. For a hugetlb
 *   file, migration may have it for writing already (TTU_RMAP_LOCKED). Where it
 *   has not, there are two orders of i_mmap_rwsem and the folio lock in the
 *   comments of mm/rmap.c, so it is only tried. "contended" counts failures.
 *
 * - anonymous memory: the anon_vma lock for reading. The anon_vma may go away
 *   with the last mapping, so a reference is needed which was taken before the
 *   folio was unmapped. Where there is none, "no_rmap" counts it.
 *
 * - KSM: the folio lock keeps the stable node.
 *
 * A zap that runs at the same time has cleared its entry but has flushed nothing
 * yet. It has a reference on the folio until after the flush, and migration fails
 * because of that. "busy" counts these folios, and mms that are being flushed.
 *
 * "no_cpus" counts the folios of which not all CPUs could be looked at. These are
 * those whose flush is put off (TTU_BATCH_FLUSH), and all of them where a
 * hypervisor flushes for this kernel. Nor is a CPU looked at that INVLPGB flushes.
 * Neither of the two tells a CPU that it was flushed.
 */
#include <linux/debugfs.h>
#include <linux/gfp.h>
#include <linux/hugetlb.h>
#include <linux/init.h>
#include <linux/ksm.h>
#include <linux/mm.h>
#include <linux/mmdebug.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/pgtable.h>
#include <linux/rmap.h>
#include <linux/smp.h>

#include <asm/tlbflush.h>

#include "internal.h"
#include "debug_vm_unmapped.h"

DEFINE_STATIC_KEY_FALSE(unmapped_key);

enum unmapped_counter {
	UNMAPPED_LOOKS,		/* walks to find an entry */
	UNMAPPED_VMAS,		/* that these came by */
	UNMAPPED_FLUSHES,	/* folios of which flushes were compared */
	UNMAPPED_CPUS,		/* CPUs of which they were, for these folios */
	UNMAPPED_MAPPED,	/* wrong: entries found */
	UNMAPPED_UNFLUSHED,	/* wrong: mms not flushed */
	UNMAPPED_BEHIND,	/* wrong: CPUs not flushed */
	UNMAPPED_CONTENDED,	/* not looked: a lock was taken */
	UNMAPPED_NO_RMAP,	/* not looked: nothing says where to */
	UNMAPPED_NO_ROOM,	/* not looked at flushes: no memory, many mms */
	UNMAPPED_NO_GEN,	/* not looked at flushes: cannot be known here */
	UNMAPPED_NO_CPUS,	/* not looked at all CPUs: cannot be known */
	UNMAPPED_BUSY,		/* not looked at flushes: somebody else's */
	UNMAPPED_NR,
};

static const char * const unmapped_names[UNMAPPED_NR] = {
	"looks", "vmas", "flushes", "cpus", "mapped", "unflushed", "behind",
	"contended", "no_rmap", "no_room", "no_gen", "no_cpus", "busy",
};

static atomic_t unmapped_counts[UNMAPPED_NR];
static unsigned long unmapped_told;	/* bits by enum unmapped_counter */
static bool unmapped_at_boot __ro_after_init;

static void unmapped_count(enum unmapped_counter what, unsigned int nr)
{
	if (nr)
		atomic_add(nr, &unmapped_counts[what]);
}

/* Which mm this is, and how often its TLBs have been flushed. */
static bool mm_flushes(struct mm_struct *mm, u64 *id, u64 *gen)
{
#ifdef CONFIG_X86
	*id = mm->context.ctx_id;
	*gen = atomic64_read(&mm->context.tlb_gen);
	return true;
#else
	/*
	 * arm64 and others flush by a broadcast instruction and count nothing,
	 * so it cannot be known who was not flushed. It would take a counter in
	 * mm_context_t, incremented in all the inline functions that flush user
	 * memory. x86 has one for its own ends. Here it would be for this check
	 * alone, and is for the architecture to want.
	 */
	return false;
#endif
}

static bool pmd_table_shared(struct page_vma_mapped_walk *pvmw)
{
	return pvmw->pte && is_vm_hugetlb_page(pvmw->vma) &&
	       huge_page_size(hstate_vma(pvmw->vma)) == PMD_SIZE &&
	       hugetlb_pmd_shared(pvmw->pte);
}

/* Can a TLB have it? One that cannot is not flushed, see ptep_clear_flush(). */
static bool entry_accessible(struct page_vma_mapped_walk *pvmw)
{
	struct mm_struct *mm = pvmw->vma->vm_mm;
	pte_t pte;

	if (!pvmw->pte) {
		pmd_t pmd = pmdp_get(pvmw->pmd);

		return pmd_present(pmd) && !pmd_protnone(pmd);
	}
	pte = is_vm_hugetlb_page(pvmw->vma) ?
	      huge_ptep_get(mm, pvmw->address, pvmw->pte) :
	      ptep_get(pvmw->pte);
	return pte_present(pte) && pte_accessible(mm, pte);
}

static void unmapped_note_one(struct folio *folio, struct vm_area_struct *vma,
			      unsigned long address, struct unmapped_note *note)
{
	DEFINE_FOLIO_VMA_WALK(pvmw, folio, vma, address, 0);
	struct unmapped_mm mm;

	if (!mm_flushes(vma->vm_mm, &mm.id, &mm.gen))
		return;
	/* Then the entry is read: what is flushed after that counts. */
	smp_rmb();
	while (page_vma_mapped_walk(&pvmw)) {
		if (!entry_accessible(&pvmw))
			continue;
		mm.mm = vma->vm_mm;
		mm.address = address;
		mm.shared = pmd_table_shared(&pvmw);
		mm.flushed = false;
		if (note->nr < PAGE_SIZE / sizeof(mm))
			note->mms[note->nr++] = mm;
		else
			note->lost++;
		page_vma_mapped_walk_done(&pvmw);
		break;
	}
}

static void unmapped_compare_one(struct vm_area_struct *vma,
				 unsigned long address,
				 struct unmapped_walk *walk)
{
	struct mm_struct *mm = vma->vm_mm;
	struct unmapped_mm *had = NULL;
	unsigned int i;
	u64 id, gen;

	if (!mm_flushes(mm, &id, &gen))
		return;
	for (i = 0; i < walk->note->nr; i++) {
		struct unmapped_mm *one = &walk->note->mms[i];

		if (one->id == id && one->address == address) {
			had = one;
			break;
		}
	}
	if (!had)
		return;
	if (mm_tlb_flush_pending(mm)) {
		walk->unknown++;
		return;
	}
	/*
	 * In this order: who has cleared an entry, in a zap, lets "pending" go
	 * after the flush. So if nothing is pending, the flush has been counted.
	 */
	smp_rmb();
	mm_flushes(mm, &id, &gen);
	if (gen != had->gen) {
		had->flushed = true;
		return;
	}
	if (!walk->unflushed++)
		walk->where_unflushed = (struct unmapped_place) {
			mm, address, had->shared };
}

#ifdef CONFIG_X86

/* A CPU and the mm that it has loaded. */
struct unmapped_cpu {
	u64 id;			/* of the mm, or 0 */
	u64 gen;		/* how far the TLB was flushed for it */
	bool unknown;		/* nobody counts that */
};

/* May be called for another CPU, and be wrong then. */
static void read_cpu(int cpu, struct unmapped_cpu *seen)
{
	struct tlb_state *state = per_cpu_ptr(&cpu_tlbstate, cpu);
	u16 asid = READ_ONCE(state->loaded_mm_asid);

	*seen = (struct unmapped_cpu) {};
	if (READ_ONCE(per_cpu(cpu_tlbstate_shared.is_lazy, cpu)))
		return;
	/* One that INVLPGB flushes. */
	if (asid >= TLB_NR_DYN_ASIDS) {
		seen->unknown = true;
		return;
	}
	seen->id = READ_ONCE(state->ctxs[asid].ctx_id);
	seen->gen = READ_ONCE(state->ctxs[asid].tlb_gen);
}

static void read_this_cpu(void *seen)
{
	read_cpu(smp_processor_id(), seen);
}

/* The mm that a CPU runs, if that was flushed; *behind: but not on this CPU. */
static struct unmapped_mm *mm_of_cpu(struct unmapped_note *note,
				     const struct unmapped_cpu *seen,
				     bool *behind)
{
	struct unmapped_mm *found = NULL;
	unsigned int i;

	/* An mm that has the folio at two addresses is there twice. */
	for (i = 0; i < note->nr; i++) {
		struct unmapped_mm *mm = &note->mms[i];

		if (mm->id != seen->id || !mm->flushed)
			continue;
		found = mm;
		*behind = seen->gen <= mm->gen;
		if (*behind)
			break;
	}
	return found;
}

/* Do the CPUs tell how far they have flushed? */
static bool cpus_count(void)
{
#ifdef CONFIG_PARAVIRT
	return pv_ops.mmu.flush_tlb_multi == native_flush_tlb_multi;
#else
	return true;
#endif
}

/*
 * After the walk that compared: were all CPUs flushed that run an mm which was?
 * False where that cannot be known of all.
 */
bool unmapped_compare_cpus(struct unmapped_note *note,
			   struct unmapped_walk *walk)
{
	struct unmapped_cpu seen;
	struct unmapped_mm *mm;
	bool behind, known = true;
	int cpu;

	if (!cpus_count())
		return false;
	for_each_online_cpu(cpu) {
		read_cpu(cpu, &seen);
		known &= !seen.unknown;
		mm = mm_of_cpu(note, &seen, &behind);
		if (!mm)
			continue;
		walk->cpus++;
		if (!behind)
			continue;
		/* Not in the middle of a switch, or of a flush. */
		if (smp_call_function_single(cpu, read_this_cpu, &seen, 1))
			continue;
		mm = mm_of_cpu(note, &seen, &behind);
		if (mm && behind && !walk->behind++) {
			walk->where_behind = (struct unmapped_place) {
				mm->mm, mm->address, mm->shared };
			walk->behind_cpu = cpu;
		}
	}
	return known;
}

#else

bool unmapped_compare_cpus(struct unmapped_note *note,
			   struct unmapped_walk *walk)
{
	return false;
}

#endif /* CONFIG_X86 */

static bool unmapped_visit(struct folio *folio, struct vm_area_struct *vma,
			   unsigned long address, void *arg)
{
	DEFINE_FOLIO_VMA_WALK(pvmw, folio, vma, address, 0);
	struct unmapped_walk *walk = arg;

	walk->vmas++;
	if (walk->fill) {
		unmapped_note_one(folio, vma, address, walk->note);
		return true;
	}
	if (page_vma_mapped_walk(&pvmw)) {
		if (!walk->mapped++)
			walk->where_mapped = (struct unmapped_place) {
				vma->vm_mm, pvmw.address,
				pmd_table_shared(&pvmw) };
		page_vma_mapped_walk_done(&pvmw);
	}
	if (walk->note)
		unmapped_compare_one(vma, address, walk);
	return true;
}

/*
 * Visit all VMAs that may map @folio. There is no .done, which would ask the map
 * count, and no .anon_lock: that of try_to_migrate() asks it as well. There is no
 * .invalid_vma: an entry in the temporary stack of exec is one.
 */
void unmapped_walk(struct folio *folio, struct unmapped_walk *walk)
{
	struct rmap_walk_control rwc = {
		.rmap_one = unmapped_visit,
		.arg = walk,
		.try_lock = folio_test_hugetlb(folio) && !folio_test_anon(folio),
	};

	if (walk->locked)
		rmap_walk_locked(folio, &rwc);
	else
		rmap_walk(folio, &rwc);
	walk->contended = rwc.contended;
}

static bool unmapped_has_rmap(struct folio *folio, struct anon_vma *anon_vma)
{
	if (folio_test_ksm(folio))
		return true;
	return folio_test_anon(folio) ? !!anon_vma : !!folio->mapping;
}

static void unmapped_report(struct folio *folio, enum unmapped_counter what,
			    const struct unmapped_place *where, int cpu)
{
	char on[24] = "";

	if (test_and_set_bit(what, &unmapped_told))
		return;
	if (what == UNMAPPED_BEHIND)
		snprintf(on, sizeof(on), " on CPU %d", cpu);
	dump_page(&folio->page, what == UNMAPPED_MAPPED ?
		  "vm_unmapped: still mapped" :
		  "vm_unmapped: not all who mapped it were flushed");
	WARN(1, "vm_unmapped: folio at pfn %#lx %s%s: mm %p, address %#lx, PMD table %s\n",
	     folio_pfn(folio),
	     what == UNMAPPED_MAPPED ? "is still mapped" : "was not flushed",
	     on, where->mm, where->address,
	     where->shared ? "shared" : "not shared");
}

static void unmapped_look_at(struct folio *folio, struct unmapped_walk *walk)
{
	unmapped_walk(folio, walk);
	if (walk->contended) {
		unmapped_count(UNMAPPED_CONTENDED, 1);
		return;
	}
	unmapped_count(UNMAPPED_LOOKS, 1);
	unmapped_count(UNMAPPED_VMAS, walk->vmas);
	unmapped_count(UNMAPPED_MAPPED, walk->mapped);
	if (walk->mapped)
		unmapped_report(folio, UNMAPPED_MAPPED, &walk->where_mapped, 0);
}

/*
 * Before a folio is unmapped: take down which mms have it mapped. Goes with
 * unmapped_check() or unmapped_forget(). @locked: the rmap lock is held.
 */
void unmapped_note(struct folio *folio, struct unmapped_note *note, bool locked)
{
	struct unmapped_walk walk = {
		.note = note, .fill = true, .locked = locked };

	*note = (struct unmapped_note) { .locked = locked };
	if (folio_test_anon(folio) && !folio_test_ksm(folio))
		note->anon_vma = folio_get_anon_vma(folio);
	if (!unmapped_has_rmap(folio, note->anon_vma))
		return;
	/* Migration may be what is to give memory back, and must not wait. */
	note->mms = (void *)__get_free_page(GFP_NOWAIT | __GFP_NOWARN);
	if (!note->mms) {
		unmapped_count(UNMAPPED_NO_ROOM, 1);
		return;
	}
	unmapped_walk(folio, &walk);
	unmapped_count(UNMAPPED_CONTENDED, walk.contended);
	unmapped_count(UNMAPPED_NO_ROOM, note->lost);
}

static void unmapped_check_cpus(struct folio *folio, struct unmapped_note *note,
				bool put_off)
{
	struct unmapped_walk walk = {};

	if (put_off || !unmapped_compare_cpus(note, &walk))
		unmapped_count(UNMAPPED_NO_CPUS, 1);
	unmapped_count(UNMAPPED_CPUS, walk.cpus);
	unmapped_count(UNMAPPED_BEHIND, walk.behind);
	if (walk.behind)
		unmapped_report(folio, UNMAPPED_BEHIND, &walk.where_behind,
				walk.behind_cpu);
}

/*
 * After that: has it been unmapped, and have they all been flushed? @put_off:
 * flushes may be done later.
 */
void unmapped_check(struct folio *folio, struct unmapped_note *note,
		    bool put_off)
{
	struct unmapped_walk walk = { .locked = note->locked };
	bool busy;

	/* Then migration gives up. */
	if (folio_mapped(folio))
		goto forget;
	if (!unmapped_has_rmap(folio, note->anon_vma)) {
		unmapped_count(UNMAPPED_NO_RMAP, 1);
		goto forget;
	}
	busy = folio_ref_count(folio) != folio_expected_ref_count(folio) + 1;
	/*
	 * Then flushes are compared: a zap that has dropped its reference has
	 * flushed, and one that has not makes migration fail.
	 */
	smp_rmb();
	if (note->nr && !busy)
		walk.note = note;
	unmapped_look_at(folio, &walk);
	if (!IS_ENABLED(CONFIG_X86)) {
		unmapped_count(UNMAPPED_NO_GEN, 1);
	} else if (busy) {
		unmapped_count(UNMAPPED_BUSY, 1);
	} else if (walk.note && !walk.contended) {
		unmapped_count(UNMAPPED_FLUSHES, 1);
		unmapped_count(UNMAPPED_BUSY, walk.unknown);
		unmapped_count(UNMAPPED_UNFLUSHED, walk.unflushed);
		if (walk.unflushed)
			unmapped_report(folio, UNMAPPED_UNFLUSHED,
					&walk.where_unflushed, 0);
		unmapped_check_cpus(folio, note, put_off);
	}
forget:
	unmapped_forget(note);
}

void unmapped_forget(struct unmapped_note *note)
{
	if (note->anon_vma)
		put_anon_vma(note->anon_vma);
	free_page((unsigned long)note->mms);
}

void __unmapped_look(struct folio *folio, struct anon_vma *anon_vma)
{
	struct unmapped_walk walk = {};

	if (unmapped_has_rmap(folio, anon_vma))
		unmapped_look_at(folio, &walk);
	else
		unmapped_count(UNMAPPED_NO_RMAP, 1);
}

static DEFINE_MUTEX(unmapped_mutex);

static int enabled_get(void *data, u64 *val)
{
	*val = static_key_enabled(&unmapped_key);
	return 0;
}

static int enabled_set(void *data, u64 val)
{
	guard(mutex)(&unmapped_mutex);
	/* What comes now is told again. */
	if (val)
		WRITE_ONCE(unmapped_told, 0);
	if (val)
		static_branch_enable(&unmapped_key);
	else
		static_branch_disable(&unmapped_key);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(enabled_fops, enabled_get, enabled_set, "%llu\n");

core_param(debug_vm_unmapped, unmapped_at_boot, bool, 0);

static int __init unmapped_init(void)
{
	struct dentry *dir = debugfs_create_dir("vm_unmapped", NULL);
	int i;

	debugfs_create_file_unsafe("enabled", 0600, dir, NULL, &enabled_fops);
	for (i = 0; i < UNMAPPED_NR; i++)
		debugfs_create_atomic_t(unmapped_names[i], 0400, dir,
					&unmapped_counts[i]);
	if (unmapped_at_boot)
		static_branch_enable(&unmapped_key);
	return 0;
}
late_initcall(unmapped_init);
