// SPDX-License-Identifier: GPL-2.0
/*
 * Does the walk of debug_vm_unmapped see what maps a folio, and who was flushed?
 *
 * A page of a file that is mapped twice, one of anonymous memory, and a hugetlb
 * page that is mapped twice through one PMD table. What must not be, such as a
 * map count that is too low, is made here for the length of a walk. Nothing is
 * reported: only unmapped_walk() and unmapped_note() are called.
 */
#include <kunit/test.h>
#include <linux/file.h>
#include <linux/hugetlb.h>
#include <linux/mman.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/pgtable.h>
#include <linux/rmap.h>
#include <linux/syscalls.h>
#include <linux/uaccess.h>

#include <asm/tlbflush.h>

#include "debug_vm_unmapped.h"
#include "internal.h"

/* Map a page, of @file if there is one, and have an entry for it. */
static unsigned long map_page(struct kunit *test, struct file *file,
			      unsigned long flags)
{
	unsigned long addr = kunit_vm_mmap(test, file, 0, PAGE_SIZE,
					   PROT_READ | PROT_WRITE, flags, 0);

	KUNIT_ASSERT_NE(test, addr, 0);
	KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE(addr));
	KUNIT_ASSERT_EQ(test, 0, put_user((char)1, (char __user *)addr));
	return addr;
}

/* The same with a file that is new; returns it with a reference. */
static struct file *map_new_file(struct kunit *test, unsigned long *addr)
{
	struct vm_area_struct *vma;
	struct file *file = NULL;

	*addr = map_page(test, NULL, MAP_SHARED | MAP_ANONYMOUS);
	mmap_read_lock(current->mm);
	vma = vma_lookup(current->mm, *addr);
	if (vma && vma->vm_file)
		file = get_file(vma->vm_file);
	mmap_read_unlock(current->mm);
	KUNIT_ASSERT_NOT_NULL(test, file);
	return file;
}

/* The folio there, locked and with a reference. */
static struct folio *lock_page_at(struct kunit *test, unsigned long addr)
{
	struct folio *folio;
	struct page *page;

	KUNIT_ASSERT_EQ(test, 1,
			get_user_pages_fast(addr, 1, FOLL_WRITE, &page));
	folio = page_folio(page);
	folio_lock(folio);
	return folio;
}

static void unlock_page_at(struct folio *folio)
{
	folio_unlock(folio);
	folio_put(folio);
}

static void finds_all_mappings_of_a_file(struct kunit *test)
{
	struct unmapped_walk both = {}, uncounted = {}, one = {}, none = {};
	unsigned long first, second;
	struct file *file = map_new_file(test, &first);
	struct folio *folio;
	int count;

	second = map_page(test, file, MAP_SHARED);
	folio = lock_page_at(test, first);
	count = atomic_read(&folio->_mapcount);
	KUNIT_ASSERT_FALSE(test, folio_test_large(folio));
	unmapped_walk(folio, &both);
	KUNIT_EXPECT_FALSE(test, both.contended);
	KUNIT_EXPECT_EQ(test, both.vmas, 2);
	KUNIT_EXPECT_EQ(test, both.mapped, 2);
	KUNIT_EXPECT_PTR_EQ(test, both.where_mapped.mm, current->mm);
	KUNIT_EXPECT_TRUE(test, both.where_mapped.address == first ||
			  both.where_mapped.address == second);
	KUNIT_EXPECT_FALSE(test, both.where_mapped.shared);

	/* The map count says that nobody maps it. */
	atomic_set(&folio->_mapcount, -1);
	unmapped_walk(folio, &uncounted);
	atomic_set(&folio->_mapcount, count);
	KUNIT_EXPECT_EQ(test, uncounted.mapped, 2);

	vm_munmap(second, PAGE_SIZE);
	unmapped_walk(folio, &one);
	KUNIT_EXPECT_EQ(test, one.vmas, 1);
	KUNIT_EXPECT_EQ(test, one.mapped, 1);
	KUNIT_EXPECT_EQ(test, one.where_mapped.address, first);

	vm_munmap(first, PAGE_SIZE);
	unmapped_walk(folio, &none);
	KUNIT_EXPECT_EQ(test, none.vmas, 0);
	KUNIT_EXPECT_EQ(test, none.mapped, 0);

	unlock_page_at(folio);
	fput(file);
}

static void finds_no_vma_without_an_entry(struct kunit *test)
{
	struct unmapped_walk walk = {};
	unsigned long addr;
	struct file *file = map_new_file(test, &addr);
	unsigned long bare = kunit_vm_mmap(test, file, 0, PAGE_SIZE, PROT_READ,
					   MAP_SHARED, 0);
	struct folio *folio = lock_page_at(test, addr);

	KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE(bare));
	unmapped_walk(folio, &walk);
	KUNIT_EXPECT_EQ(test, walk.vmas, 2);
	KUNIT_EXPECT_EQ(test, walk.mapped, 1);
	KUNIT_EXPECT_EQ(test, walk.where_mapped.address, addr);
	unlock_page_at(folio);
	fput(file);
}

static void finds_anonymous_memory(struct kunit *test)
{
	struct unmapped_walk before = {}, after = {};
	unsigned long addr = map_page(test, NULL,
				      MAP_PRIVATE | MAP_ANONYMOUS);
	struct folio *folio = lock_page_at(test, addr);
	struct unmapped_note note;

	unmapped_walk(folio, &before);
	KUNIT_EXPECT_EQ(test, before.mapped, 1);
	KUNIT_EXPECT_EQ(test, before.where_mapped.address, addr);

	/* It has the reference without which the second walk is not allowed. */
	unmapped_note(folio, &note, false);
	KUNIT_ASSERT_NOT_NULL(test, note.anon_vma);
	vm_munmap(addr, PAGE_SIZE);
	unmapped_walk(folio, &after);
	KUNIT_EXPECT_EQ(test, after.mapped, 0);
	unmapped_forget(&note);
	unlock_page_at(folio);
}

static void a_migration_entry_is_none(struct kunit *test)
{
	struct unmapped_walk during = {}, after = {};
	unsigned long addr;
	struct file *file = map_new_file(test, &addr);
	struct folio *folio = lock_page_at(test, addr);
	struct unmapped_note note;

	unmapped_note(folio, &note, false);
	try_to_migrate(folio, 0);
	KUNIT_EXPECT_FALSE(test, folio_mapped(folio));
	during.note = &note;
	unmapped_walk(folio, &during);
	KUNIT_EXPECT_EQ(test, during.vmas, 1);
	KUNIT_EXPECT_EQ(test, during.mapped, 0);
	KUNIT_EXPECT_EQ(test, during.unflushed, 0);
	unmapped_forget(&note);

	remove_migration_ptes(folio, folio, 0);
	unmapped_walk(folio, &after);
	KUNIT_EXPECT_EQ(test, after.mapped, 1);
	unlock_page_at(folio);
	fput(file);
}

static void knows_who_was_flushed(struct kunit *test)
{
	struct unmapped_walk before = {}, after = {};
	unsigned long addr;
	struct file *file = map_new_file(test, &addr);
	struct folio *folio = lock_page_at(test, addr);
	struct unmapped_note note;

	unmapped_note(folio, &note, false);
	if (!IS_ENABLED(CONFIG_X86)) {
		KUNIT_EXPECT_EQ(test, note.nr, 0);
		goto out;
	}
	KUNIT_EXPECT_EQ(test, note.nr, 1);
	KUNIT_EXPECT_EQ(test, note.mms[0].address, addr);
	KUNIT_EXPECT_FALSE(test, note.mms[0].shared);

	before.note = &note;
	unmapped_walk(folio, &before);
	KUNIT_EXPECT_EQ(test, before.unflushed, 1);
	KUNIT_EXPECT_PTR_EQ(test, before.where_unflushed.mm, current->mm);
	KUNIT_EXPECT_EQ(test, before.where_unflushed.address, addr);

	flush_tlb_mm(current->mm);
	after.note = &note;
	unmapped_walk(folio, &after);
	KUNIT_EXPECT_EQ(test, after.unflushed, 0);
out:
	unmapped_forget(&note);
	unlock_page_at(folio);
	fput(file);
}

static void does_not_blame_a_flush_that_is_under_way(struct kunit *test)
{
	struct unmapped_walk walk = {};
	unsigned long addr;
	struct file *file = map_new_file(test, &addr);
	struct folio *folio = lock_page_at(test, addr);
	struct unmapped_note note;

	unmapped_note(folio, &note, false);
	walk.note = &note;
	inc_tlb_flush_pending(current->mm);
	unmapped_walk(folio, &walk);
	dec_tlb_flush_pending(current->mm);
	KUNIT_EXPECT_EQ(test, walk.unflushed, 0);
	KUNIT_EXPECT_EQ(test, walk.unknown, IS_ENABLED(CONFIG_X86) ? 1 : 0);
	unmapped_forget(&note);
	unlock_page_at(folio);
	fput(file);
}

#ifdef CONFIG_X86
static void knows_a_cpu_that_was_left_out(struct kunit *test)
{
	struct unmapped_walk left_out = {}, after = {};
	unsigned long addr;
	struct file *file = map_new_file(test, &addr);
	struct folio *folio = lock_page_at(test, addr);
	struct unmapped_note note;
	bool known;
	int cpu;

	unmapped_note(folio, &note, false);
	KUNIT_ASSERT_EQ(test, note.nr, 1);

	/* A flush that is counted, and of which nobody tells this CPU. */
	cpu = get_cpu();
	inc_mm_tlb_gen(current->mm);
	note.mms[0].flushed = true;
	known = unmapped_compare_cpus(&note, &left_out);
	put_cpu();
	flush_tlb_mm(current->mm);
	unmapped_compare_cpus(&note, &after);

	unmapped_forget(&note);
	unlock_page_at(folio);
	fput(file);
	if (!known)
		kunit_skip(test, "CPUs do not tell how far they have flushed");
	KUNIT_EXPECT_EQ(test, left_out.cpus, 1);
	KUNIT_EXPECT_EQ(test, left_out.behind, 1);
	KUNIT_EXPECT_EQ(test, left_out.behind_cpu, cpu);
	KUNIT_EXPECT_EQ(test, left_out.where_behind.address, addr);
	KUNIT_EXPECT_EQ(test, after.behind, 0);
}
#endif

#ifdef CONFIG_HUGETLB_PAGE

/* Pages that a PMD maps. VMAs that share a PMD table have all that it maps. */
#define HUGE_FLAGS	(MAP_SHARED | MAP_FIXED | MAP_NORESERVE)
#define HUGE_ANON	(MAP_ANONYMOUS | MAP_HUGETLB | PMD_SHIFT << MAP_HUGE_SHIFT)
#define HUGE_FIRST	PUD_SIZE
#define HUGE_SECOND	(2 * PUD_SIZE)

/*
 * Have an entry there. The pool may be empty: a page beyond it will do, and the
 * test before this one may not have given back its own yet.
 */
static bool touch_huge_page(struct hstate *h, unsigned long addr)
{
	unsigned long limit;
	bool failed;

	spin_lock_irq(&hugetlb_lock);
	limit = h->nr_overcommit_huge_pages;
	h->nr_overcommit_huge_pages = max(limit, h->surplus_huge_pages + 1);
	spin_unlock_irq(&hugetlb_lock);
	failed = put_user((char)1, (char __user *)addr);
	spin_lock_irq(&hugetlb_lock);
	h->nr_overcommit_huge_pages = limit;
	spin_unlock_irq(&hugetlb_lock);
	return !failed;
}

/* A hugetlb page that is mapped at two addresses, through one PMD table. */
static struct file *map_huge_page_twice(struct kunit *test)
{
	struct hstate *h = size_to_hstate(PMD_SIZE);
	struct mm_struct *mm;
	struct vm_area_struct *vma;
	struct file *file = NULL;
	unsigned long addr;

	if (!h)
		kunit_skip(test, "no hugetlb pages of the size of a PMD");
	/* It gives this thread an mm. */
	map_page(test, NULL, MAP_PRIVATE | MAP_ANONYMOUS);
	mm = current->mm;
	addr = ksys_mmap_pgoff(HUGE_FIRST, PUD_SIZE, PROT_READ | PROT_WRITE,
			       HUGE_FLAGS | HUGE_ANON, -1, 0);
	if (IS_ERR_VALUE(addr))
		kunit_skip(test, "a file of hugetlb pages cannot be had: %ld",
			   (long)addr);
	KUNIT_ASSERT_EQ(test, addr, HUGE_FIRST);
	if (!touch_huge_page(h, HUGE_FIRST))
		kunit_skip(test, "no hugetlb page can be had");

	mmap_read_lock(mm);
	vma = vma_lookup(mm, HUGE_FIRST);
	if (vma && vma->vm_file)
		file = get_file(vma->vm_file);
	mmap_read_unlock(mm);
	KUNIT_ASSERT_NOT_NULL(test, file);
	addr = kunit_vm_mmap(test, file, HUGE_SECOND, PUD_SIZE,
			     PROT_READ | PROT_WRITE, HUGE_FLAGS, 0);
	if (addr != HUGE_SECOND || !touch_huge_page(h, HUGE_SECOND)) {
		fput(file);
		kunit_skip(test, "a hugetlb page cannot be mapped twice");
	}
	/* Not all kernels that could share a table do. */
	if (pmd_off(mm, HUGE_FIRST) != pmd_off(mm, HUGE_SECOND)) {
		fput(file);
		kunit_skip(test, "PMD tables are not shared");
	}
	return file;
}

static void finds_all_who_share_a_table(struct kunit *test)
{
	struct unmapped_walk both = {}, before = {}, after = {}, one = {};
	struct file *file = map_huge_page_twice(test);
	struct folio *folio = lock_page_at(test, HUGE_FIRST);
	struct unmapped_note note;
	unsigned int i;

	/* Why the count cannot tell. */
	KUNIT_EXPECT_EQ(test, folio_mapcount(folio), 1);
	unmapped_walk(folio, &both);
	KUNIT_EXPECT_FALSE(test, both.contended);
	KUNIT_EXPECT_EQ(test, both.vmas, 2);
	KUNIT_EXPECT_EQ(test, both.mapped, 2);
	KUNIT_EXPECT_PTR_EQ(test, both.where_mapped.mm, current->mm);
	KUNIT_EXPECT_TRUE(test, both.where_mapped.address == HUGE_FIRST ||
			  both.where_mapped.address == HUGE_SECOND);
	KUNIT_EXPECT_TRUE(test, both.where_mapped.shared);

	unmapped_note(folio, &note, false);
	KUNIT_EXPECT_EQ(test, note.nr, IS_ENABLED(CONFIG_X86) ? 2 : 0);
	for (i = 0; i < note.nr; i++)
		KUNIT_EXPECT_TRUE(test, note.mms[i].shared);
	before.note = &note;
	unmapped_walk(folio, &before);
	KUNIT_EXPECT_EQ(test, before.unflushed, note.nr);
	flush_tlb_mm(current->mm);
	after.note = &note;
	unmapped_walk(folio, &after);
	KUNIT_EXPECT_EQ(test, after.unflushed, 0);
	unmapped_forget(&note);

	/* Who is left has the table alone. */
	vm_munmap(HUGE_SECOND, PUD_SIZE);
	unmapped_walk(folio, &one);
	KUNIT_EXPECT_EQ(test, one.vmas, 1);
	KUNIT_EXPECT_EQ(test, one.mapped, 1);
	KUNIT_EXPECT_EQ(test, one.where_mapped.address, HUGE_FIRST);
	KUNIT_EXPECT_FALSE(test, one.where_mapped.shared);

	unlock_page_at(folio);
	fput(file);
}

static void does_not_wait_for_a_hugetlb_file(struct kunit *test)
{
	struct unmapped_walk taken = {}, ours = { .locked = true }, after = {};
	struct file *file = map_huge_page_twice(test);
	struct folio *folio = lock_page_at(test, HUGE_FIRST);

	/* As somebody else would, who waits for the folio. */
	i_mmap_lock_write(file->f_mapping);
	unmapped_walk(folio, &taken);
	unmapped_walk(folio, &ours);
	i_mmap_unlock_write(file->f_mapping);
	unmapped_walk(folio, &after);

	KUNIT_EXPECT_TRUE(test, taken.contended);
	KUNIT_EXPECT_EQ(test, taken.vmas, 0);
	KUNIT_EXPECT_EQ(test, taken.mapped, 0);
	/* Migration may have that lock itself (TTU_RMAP_LOCKED). */
	KUNIT_EXPECT_FALSE(test, ours.contended);
	KUNIT_EXPECT_EQ(test, ours.mapped, 2);
	KUNIT_EXPECT_FALSE(test, after.contended);
	KUNIT_EXPECT_EQ(test, after.mapped, 2);

	unlock_page_at(folio);
	fput(file);
}

#endif /* CONFIG_HUGETLB_PAGE */

static struct kunit_case unmapped_cases[] = {
	KUNIT_CASE(finds_all_mappings_of_a_file),
	KUNIT_CASE(finds_no_vma_without_an_entry),
	KUNIT_CASE(finds_anonymous_memory),
	KUNIT_CASE(a_migration_entry_is_none),
	KUNIT_CASE(knows_who_was_flushed),
	KUNIT_CASE(does_not_blame_a_flush_that_is_under_way),
#ifdef CONFIG_X86
	KUNIT_CASE(knows_a_cpu_that_was_left_out),
#endif
#ifdef CONFIG_HUGETLB_PAGE
	KUNIT_CASE(finds_all_who_share_a_table),
	KUNIT_CASE(does_not_wait_for_a_hugetlb_file),
#endif
	{}
};

static struct kunit_suite unmapped_suite = {
	.name = "debug_vm_unmapped",
	.test_cases = unmapped_cases,
};

kunit_test_suite(unmapped_suite);

MODULE_DESCRIPTION("KUnit tests of debug_vm_unmapped");
MODULE_LICENSE("GPL");
