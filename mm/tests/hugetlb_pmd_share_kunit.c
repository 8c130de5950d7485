// SPDX-License-Identifier: GPL-2.0
/*
 * Which hugetlb mappings may share a PMD table, and what that means for a range
 * of one of them.
 *
 * A PMD table maps PUD_SIZE bytes. Two mappings of a file may share one where
 * both have the whole of its range at the same place in the file, and agree in
 * their flags. Unsharing takes away all that the table maps, so whoever is about
 * to change a part has to flush, and to tell the notifiers of, every whole table
 * that the part touches.
 *
 * The functions only compute with what is in a VMA, so the VMAs here are no more
 * than that: no mm, no file, no page table, and a lock that nobody takes.
 */
#include <kunit/test.h>
#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/userfaultfd_k.h>

#include "../internal.h"

/* An address, in PUDs and PMDs. The last PMD of a PUD is PMD -1 of the next. */
#define AT(puds, pmds)	((puds) * PUD_SIZE + (pmds) * PMD_SIZE)

#define FLAGS		(VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | \
			 VM_MAYEXEC | VM_HUGETLB)
#define PRIVATE		FLAGS
#define SHARED		(FLAGS | VM_SHARED | VM_MAYSHARE)
/* MAP_SHARED of a file that was opened for reading only. */
#define SHARED_RO	((FLAGS | VM_MAYSHARE) & ~(VM_WRITE | VM_MAYWRITE))

/* Stands for the lock that a VMA must have to share; only its address counts. */
static struct hugetlb_vma_lock vma_lock;

static void make_vma(struct vm_area_struct *vma, vm_flags_t flags,
		     unsigned long start, unsigned long end)
{
	memset(vma, 0, sizeof(*vma));
	vma->vm_start = start;
	vma->vm_end = end;
	vm_flags_init(vma, flags);
	if (flags & VM_MAYSHARE)
		vma->vm_private_data = &vma_lock;
}

struct range_case {
	const char *desc;
	vm_flags_t flags;
	unsigned long vm_start, vm_end;
	unsigned long start, end;
	unsigned long want_start, want_end;
};

static const struct range_case adjust_cases[] = {
	/* Nothing can be shared: the range stays as it is. */
	{
		"private mapping", PRIVATE,
		AT(4, 0), AT(6, 0), AT(4, 1), AT(4, 2), AT(4, 1), AT(4, 2),
	}, {
		"shorter than a PUD, aligned start", SHARED,
		AT(4, 0), AT(5, -1), AT(4, 1), AT(4, 2), AT(4, 1), AT(4, 2),
	}, {
		"shorter than a PUD, aligned end", SHARED,
		AT(4, 1), AT(5, 0), AT(4, 2), AT(4, 3), AT(4, 2), AT(4, 3),
	}, {
		"one PUD long, not aligned", SHARED,
		AT(4, 1), AT(5, 1), AT(4, 2), AT(4, 3), AT(4, 2), AT(4, 3),
	}, {
		"nearly two PUDs long, none of them whole", SHARED,
		AT(4, 1), AT(6, -1), AT(5, -1), AT(5, 1), AT(5, -1), AT(5, 1),
	},
	/* A range that is whole already. */
	{
		"the only PUD", SHARED,
		AT(4, 0), AT(5, 0), AT(4, 0), AT(5, 0), AT(4, 0), AT(5, 0),
	}, {
		"the middle one of three PUDs", SHARED,
		AT(4, 0), AT(7, 0), AT(5, 0), AT(6, 0), AT(5, 0), AT(6, 0),
	}, {
		"all of the VMA, parts of PUDs at both ends", SHARED,
		AT(3, 1), AT(6, -1), AT(3, 1), AT(6, -1), AT(3, 1), AT(6, -1),
	}, {
		"the whole PUDs and no more", SHARED,
		AT(3, 1), AT(6, -1), AT(4, 0), AT(5, 0), AT(4, 0), AT(5, 0),
	},
	/* One page in a PUD that is whole. */
	{
		"first page", SHARED,
		AT(4, 0), AT(5, 0), AT(4, 0), AT(4, 1), AT(4, 0), AT(5, 0),
	}, {
		"page in the middle", SHARED,
		AT(4, 0), AT(5, 0), AT(4, 5), AT(4, 6), AT(4, 0), AT(5, 0),
	}, {
		"last page", SHARED,
		AT(4, 0), AT(5, 0), AT(5, -1), AT(5, 0), AT(4, 0), AT(5, 0),
	}, {
		"page in the first of two PUDs", SHARED,
		AT(4, 0), AT(6, 0), AT(4, 5), AT(4, 6), AT(4, 0), AT(5, 0),
	}, {
		"page in the second of two PUDs", SHARED,
		AT(4, 0), AT(6, 0), AT(5, 5), AT(5, 6), AT(5, 0), AT(6, 0),
	}, {
		"first page of the second PUD", SHARED,
		AT(4, 0), AT(6, 0), AT(5, 0), AT(5, 1), AT(5, 0), AT(6, 0),
	}, {
		"last page of the first PUD", SHARED,
		AT(4, 0), AT(6, 0), AT(5, -1), AT(5, 0), AT(4, 0), AT(5, 0),
	}, {
		"page between parts of PUDs", SHARED,
		AT(3, 1), AT(6, -1), AT(4, 5), AT(4, 6), AT(4, 0), AT(5, 0),
	}, {
		"shared mapping that is never written to", SHARED_RO,
		AT(4, 0), AT(5, 0), AT(4, 5), AT(4, 6), AT(4, 0), AT(5, 0),
	},
	/* A part of a PUD at an end of the VMA is not shared and not added. */
	{
		"page before the first whole PUD", SHARED,
		AT(3, 1), AT(6, -1), AT(3, 2), AT(3, 3), AT(3, 2), AT(3, 3),
	}, {
		"up to the first whole PUD", SHARED,
		AT(3, 1), AT(6, -1), AT(3, 2), AT(4, 0), AT(3, 2), AT(4, 0),
	}, {
		"into the first whole PUD", SHARED,
		AT(3, 1), AT(6, -1), AT(3, 2), AT(4, 1), AT(3, 2), AT(5, 0),
	}, {
		"page after the last whole PUD", SHARED,
		AT(3, 1), AT(6, -1), AT(5, 2), AT(5, 3), AT(5, 2), AT(5, 3),
	}, {
		"from the end of the last whole PUD", SHARED,
		AT(3, 1), AT(6, -1), AT(5, 0), AT(5, 3), AT(5, 0), AT(5, 3),
	}, {
		"from the last page of the last whole PUD", SHARED,
		AT(3, 1), AT(6, -1), AT(5, -1), AT(5, 3), AT(4, 0), AT(5, 3),
	}, {
		"from part to part over a whole PUD", SHARED,
		AT(3, 1), AT(6, -1), AT(3, 2), AT(5, 3), AT(3, 2), AT(5, 3),
	},
	/* More than one PUD. */
	{
		"two pages, a PUD each", SHARED,
		AT(4, 0), AT(7, 0), AT(5, -1), AT(5, 1), AT(4, 0), AT(6, 0),
	}, {
		"last page of the first PUD to first page of the third", SHARED,
		AT(4, 0), AT(7, 0), AT(5, -1), AT(6, 1), AT(4, 0), AT(7, 0),
	}, {
		"a PUD's length from inside a PUD", SHARED,
		AT(4, 0), AT(7, 0), AT(4, 5), AT(5, 5), AT(4, 0), AT(6, 0),
	},
};

KUNIT_ARRAY_PARAM_DESC(adjust, adjust_cases, desc);

static void adjust_range_case(struct kunit *test)
{
	const struct range_case *c = test->param_value;
	unsigned long start = c->start, end = c->end;
	struct vm_area_struct vma;

	make_vma(&vma, c->flags, c->vm_start, c->vm_end);
	adjust_range_if_pmd_sharing_possible(&vma, &start, &end);

	KUNIT_EXPECT_EQ(test, start, c->want_start);
	KUNIT_EXPECT_EQ(test, end, c->want_end);
}

/*
 * A range that ends before it begins is none, and nobody asks for one. What
 * comes out of it is of no use, but lies in the VMA's PUDs.
 */
static void adjust_range_reversed(struct kunit *test)
{
	struct vm_area_struct vma;
	unsigned long start, end;

	make_vma(&vma, SHARED, AT(4, 0), AT(6, 0));
	start = AT(5, 2);
	end = AT(4, 1);
	adjust_range_if_pmd_sharing_possible(&vma, &start, &end);
	KUNIT_EXPECT_GE(test, start, AT(4, 0));
	KUNIT_EXPECT_LE(test, end, AT(6, 0));

	/* Where nothing can be shared it stays as it is. */
	make_vma(&vma, PRIVATE, AT(4, 0), AT(6, 0));
	start = AT(5, 2);
	end = AT(4, 1);
	adjust_range_if_pmd_sharing_possible(&vma, &start, &end);
	KUNIT_EXPECT_EQ(test, start, AT(5, 2));
	KUNIT_EXPECT_EQ(test, end, AT(4, 1));
}

/* What has to come out, PUD by PUD. */
static void widen(struct vm_area_struct *vma, unsigned long *start,
		  unsigned long *end)
{
	unsigned long from = *start, to = *end, pud;

	if (!(vma->vm_flags & VM_MAYSHARE))
		return;
	for (pud = from & PUD_MASK; pud < to; pud += PUD_SIZE) {
		if (pud < vma->vm_start || pud + PUD_SIZE > vma->vm_end)
			continue;
		*start = min(*start, pud);
		*end = max(*end, pud + PUD_SIZE);
	}
}

/* A PUD's ends, and what is next to them, for four PUDs. */
static const unsigned long edges[] = {
	AT(4, 0), AT(4, 1), AT(4, 7), AT(5, -1),
	AT(5, 0), AT(5, 1), AT(5, 7), AT(6, -1),
	AT(6, 0), AT(6, 1), AT(6, 7), AT(7, -1),
	AT(7, 0), AT(7, 1), AT(7, 7), AT(8, -1), AT(8, 0),
};

static void adjust_one_range(struct kunit *test, struct vm_area_struct *vma,
			     unsigned long from, unsigned long to)
{
	unsigned long want_start = from, want_end = to;
	unsigned long start = from, end = to;

	widen(vma, &want_start, &want_end);
	adjust_range_if_pmd_sharing_possible(vma, &start, &end);

	/* The first that is wrong says enough. */
	KUNIT_ASSERT_TRUE_MSG(test, start == want_start && end == want_end,
			      "VMA %#lx-%#lx, flags %#lx, range %#lx-%#lx: became %#lx-%#lx, should be %#lx-%#lx",
			      vma->vm_start, vma->vm_end,
			      (unsigned long)vma->vm_flags, from, to,
			      start, end, want_start, want_end);
}

static void adjust_all_ranges(struct kunit *test, struct vm_area_struct *vma)
{
	int i, j;

	for (i = 0; i < ARRAY_SIZE(edges); i++) {
		for (j = i + 1; j < ARRAY_SIZE(edges); j++) {
			if (range_in_vma(vma, edges[i], edges[j]))
				adjust_one_range(test, vma, edges[i], edges[j]);
		}
	}
}

/* Every range in every VMA that there can be between the edges. */
static void adjust_range_everywhere(struct kunit *test)
{
	static const vm_flags_t flags[] = { PRIVATE, SHARED, SHARED_RO };
	struct vm_area_struct vma;
	int i, j, f;

	for (i = 0; i < ARRAY_SIZE(edges); i++) {
		for (j = i + 1; j < ARRAY_SIZE(edges); j++) {
			for (f = 0; f < ARRAY_SIZE(flags); f++) {
				make_vma(&vma, flags[f], edges[i], edges[j]);
				adjust_all_ranges(test, &vma);
			}
		}
	}
}

static void range_in_vma_edges(struct kunit *test)
{
	const unsigned long low = AT(4, 1), high = AT(4, 9);
	struct vm_area_struct vma;

	make_vma(&vma, SHARED, low, high);

	KUNIT_EXPECT_FALSE(test, range_in_vma(NULL, low, high));
	KUNIT_EXPECT_FALSE(test, range_in_vma(NULL, 0, 0));

	KUNIT_EXPECT_TRUE(test, range_in_vma(&vma, low, high));
	KUNIT_EXPECT_TRUE(test, range_in_vma(&vma, low, low + 1));
	KUNIT_EXPECT_TRUE(test, range_in_vma(&vma, high - 1, high));
	KUNIT_EXPECT_TRUE(test, range_in_vma(&vma, low + 1, high - 1));

	KUNIT_EXPECT_FALSE(test, range_in_vma(&vma, low - 1, high));
	KUNIT_EXPECT_FALSE(test, range_in_vma(&vma, low, high + 1));
	KUNIT_EXPECT_FALSE(test, range_in_vma(&vma, low - 1, high + 1));
	KUNIT_EXPECT_FALSE(test, range_in_vma(&vma, low - 1, low));
	KUNIT_EXPECT_FALSE(test, range_in_vma(&vma, high, high + 1));
	KUNIT_EXPECT_FALSE(test, range_in_vma(&vma, 0, ULONG_MAX));

	/* Nothing is in the VMA wherever it could begin and end there ... */
	KUNIT_EXPECT_TRUE(test, range_in_vma(&vma, low, low));
	KUNIT_EXPECT_TRUE(test, range_in_vma(&vma, low + 1, low + 1));
	KUNIT_EXPECT_TRUE(test, range_in_vma(&vma, high, high));
	KUNIT_EXPECT_FALSE(test, range_in_vma(&vma, low - 1, low - 1));
	KUNIT_EXPECT_FALSE(test, range_in_vma(&vma, high + 1, high + 1));

	/* ... and so is less than nothing: nobody asks which end is first. */
	KUNIT_EXPECT_TRUE(test, range_in_vma(&vma, high, low));
	KUNIT_EXPECT_TRUE(test, range_in_vma(&vma, low + 2, low + 1));
	KUNIT_EXPECT_FALSE(test, range_in_vma(&vma, low - 1, low - 2));
	KUNIT_EXPECT_FALSE(test, range_in_vma(&vma, high + 2, high + 1));
}

static void want_share_whole_puds_only(struct kunit *test)
{
	struct vm_area_struct vma;

	/* A part, two whole PUDs, a part. */
	make_vma(&vma, SHARED, AT(3, 1), AT(7, -1));
	KUNIT_EXPECT_FALSE(test, want_pmd_share(&vma, AT(3, 1)));
	KUNIT_EXPECT_FALSE(test, want_pmd_share(&vma, AT(4, 0) - 1));
	KUNIT_EXPECT_TRUE(test, want_pmd_share(&vma, AT(4, 0)));
	KUNIT_EXPECT_TRUE(test, want_pmd_share(&vma, AT(4, 5)));
	KUNIT_EXPECT_TRUE(test, want_pmd_share(&vma, AT(5, 0) - 1));
	KUNIT_EXPECT_TRUE(test, want_pmd_share(&vma, AT(5, 0)));
	KUNIT_EXPECT_TRUE(test, want_pmd_share(&vma, AT(6, 0) - 1));
	KUNIT_EXPECT_FALSE(test, want_pmd_share(&vma, AT(6, 0)));
	KUNIT_EXPECT_FALSE(test, want_pmd_share(&vma, AT(7, -2)));

	/* One PUD, and one page less of it at either end. */
	make_vma(&vma, SHARED, AT(4, 0), AT(5, 0));
	KUNIT_EXPECT_TRUE(test, want_pmd_share(&vma, AT(4, 5)));
	make_vma(&vma, SHARED, AT(4, 1), AT(5, 0));
	KUNIT_EXPECT_FALSE(test, want_pmd_share(&vma, AT(4, 5)));
	make_vma(&vma, SHARED, AT(4, 0), AT(5, -1));
	KUNIT_EXPECT_FALSE(test, want_pmd_share(&vma, AT(4, 5)));
	/* Long enough, but no PUD is whole. */
	make_vma(&vma, SHARED, AT(4, 1), AT(6, -1));
	KUNIT_EXPECT_FALSE(test, want_pmd_share(&vma, AT(4, 5)));
	KUNIT_EXPECT_FALSE(test, want_pmd_share(&vma, AT(5, 5)));
}

static void want_share_flags(struct kunit *test)
{
	struct vm_area_struct vma;

	make_vma(&vma, SHARED_RO, AT(4, 0), AT(5, 0));
	KUNIT_EXPECT_TRUE(test, want_pmd_share(&vma, AT(4, 5)));

	/* What a private mapping has there is its reservations, not a lock. */
	make_vma(&vma, PRIVATE, AT(4, 0), AT(5, 0));
	KUNIT_EXPECT_FALSE(test, want_pmd_share(&vma, AT(4, 5)));
	vma.vm_private_data = &vma_lock;
	KUNIT_EXPECT_FALSE(test, want_pmd_share(&vma, AT(4, 5)));

	/* No memory for the lock when it was mapped, or being unmapped. */
	make_vma(&vma, SHARED, AT(4, 0), AT(5, 0));
	vma.vm_private_data = NULL;
	KUNIT_EXPECT_FALSE(test, want_pmd_share(&vma, AT(4, 5)));
}

static void want_share_userfaultfd(struct kunit *test)
{
	/* What userfaultfd keeps in the entries is of one process alone. */
	static const vm_flags_t flags[] = {
		VM_UFFD_WP,
		VM_UFFD_MINOR,
#ifdef VM_UFFD_RWP
		VM_UFFD_RWP,
#endif
	};
	struct vm_area_struct vma;
	int i;

	if (!IS_ENABLED(CONFIG_USERFAULTFD))
		kunit_skip(test, "no CONFIG_USERFAULTFD");

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		if (!flags[i])	/* not on this architecture */
			continue;
		make_vma(&vma, SHARED | flags[i], AT(4, 0), AT(5, 0));
		KUNIT_EXPECT_FALSE_MSG(test, want_pmd_share(&vma, AT(4, 5)),
				       "VMA flag %#lx",
				       (unsigned long)flags[i]);
	}

	/* A page is missing for all; UFFDIO_POISON unshares by itself. */
	make_vma(&vma, SHARED | VM_UFFD_MISSING, AT(4, 0), AT(5, 0));
	KUNIT_EXPECT_TRUE(test, want_pmd_share(&vma, AT(4, 5)));
}

/* The page of the file at an address, in the units of vm_pgoff. */
static pgoff_t page_of(struct vm_area_struct *vma, unsigned long addr)
{
	return vma->vm_pgoff + ((addr - vma->vm_start) >> PAGE_SHIFT);
}

/* Where svma maps what vma has at addr, if it may be had from there, or 0. */
static unsigned long shareable(struct vm_area_struct *svma,
			       struct vm_area_struct *vma, unsigned long addr)
{
	return page_table_shareable(svma, vma, addr, page_of(vma, addr));
}

static void shareable_where(struct kunit *test)
{
	struct vm_area_struct svma, vma;

	/* The same address in both: what fork() makes. */
	make_vma(&vma, SHARED, AT(4, 0), AT(6, 0));
	make_vma(&svma, SHARED, AT(4, 0), AT(6, 0));
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(4, 0)), AT(4, 0));
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(5, -1)), AT(5, -1));
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(5, 5)), AT(5, 5));

	/* Any other, as long as it is at the same place in a PUD. */
	make_vma(&svma, SHARED, AT(11, 0), AT(13, 0));
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(4, 0)), AT(11, 0));
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(5, 5)), AT(12, 5));
	KUNIT_EXPECT_EQ(test, shareable(&vma, &svma, AT(12, 5)), AT(5, 5));

	make_vma(&svma, SHARED, AT(11, 1), AT(13, 1));
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(4, 0)), 0);
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(5, 5)), 0);
	KUNIT_EXPECT_EQ(test, shareable(&vma, &svma, AT(12, 5)), 0);

	/* The other one maps more of the file, from an earlier page on ... */
	make_vma(&svma, SHARED, AT(11, 0), AT(15, 0));
	vma.vm_pgoff = AT(1, 0) >> PAGE_SHIFT;
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(4, 0)), AT(12, 0));
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(5, 5)), AT(13, 5));
	/* ... which need not be where a PUD begins. */
	make_vma(&svma, SHARED, AT(12, -3), AT(15, 0));
	vma.vm_pgoff = AT(0, 3) >> PAGE_SHIFT;
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(4, 0)), AT(12, 0));
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(5, 5)), AT(13, 5));
	vma.vm_pgoff = AT(0, 4) >> PAGE_SHIFT;
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(4, 0)), 0);
}

static void shareable_whole_puds_only(struct kunit *test)
{
	struct vm_area_struct svma, vma;

	make_vma(&vma, SHARED, AT(4, 0), AT(6, 0));

	/* All but the last page of the second PUD. */
	make_vma(&svma, SHARED, AT(11, 0), AT(13, -1));
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(4, 5)), AT(11, 5));
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(5, 5)), 0);

	/* All but the first page of the first. */
	make_vma(&svma, SHARED, AT(11, 1), AT(13, 0));
	svma.vm_pgoff = AT(0, 1) >> PAGE_SHIFT;
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(4, 5)), 0);
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(5, 5)), AT(12, 5));
}

static void shareable_lock(struct kunit *test)
{
	struct vm_area_struct svma, vma;

	make_vma(&vma, SHARED, AT(4, 0), AT(5, 0));
	make_vma(&svma, SHARED, AT(11, 0), AT(12, 0));
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(4, 5)), AT(11, 5));
	svma.vm_private_data = NULL;
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(4, 5)), 0);
}

static void shareable_flags(struct kunit *test)
{
	struct vm_area_struct svma, vma;
	int bit;

	make_vma(&vma, SHARED, AT(4, 0), AT(5, 0));

	/* The other one has one flag more, or one less. */
	for (bit = 0; bit < BITS_PER_LONG; bit++) {
		const vm_flags_t flag = BIT(bit);
		const bool locked = flag & VM_LOCKED_MASK;

		/* Has a case of its own. */
		if (flag & VM_SOFTDIRTY)
			continue;
		make_vma(&svma, SHARED ^ flag, AT(11, 0), AT(12, 0));
		svma.vm_private_data = &vma_lock;
		KUNIT_EXPECT_EQ_MSG(test, shareable(&svma, &vma, AT(4, 5)),
				    locked ? AT(11, 5) : 0,
				    "VMA flag %#lx", (unsigned long)flag);
		KUNIT_EXPECT_EQ_MSG(test, shareable(&vma, &svma, AT(11, 5)),
				    locked ? AT(4, 5) : 0,
				    "VMA flag %#lx", (unsigned long)flag);
	}

	make_vma(&svma, SHARED | VM_LOCKED | VM_LOCKONFAULT, AT(11, 0), AT(12, 0));
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(4, 5)), AT(11, 5));
}

/*
 * A new VMA is soft-dirty, and one whose process wrote to /proc/PID/clear_refs
 * is not any more. Nothing of hugetlb pages is tracked that way, but the flag
 * counts like any other: such a process no longer shares with new ones.
 */
static void shareable_soft_dirty(struct kunit *test)
{
	struct vm_area_struct svma, vma;

	if (!VM_SOFTDIRTY)
		kunit_skip(test, "no CONFIG_MEM_SOFT_DIRTY");
#ifdef pgtable_supports_soft_dirty
	if (!pgtable_supports_soft_dirty())
		kunit_skip(test, "the CPU has no soft-dirty bit");
#endif

	make_vma(&vma, SHARED | VM_SOFTDIRTY, AT(4, 0), AT(5, 0));
	make_vma(&svma, SHARED | VM_SOFTDIRTY, AT(11, 0), AT(12, 0));
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(4, 5)), AT(11, 5));

	make_vma(&svma, SHARED, AT(11, 0), AT(12, 0));
	KUNIT_EXPECT_EQ(test, shareable(&svma, &vma, AT(4, 5)), 0);
	KUNIT_EXPECT_EQ(test, shareable(&vma, &svma, AT(11, 5)), 0);
}

static struct kunit_case hugetlb_pmd_share_cases[] = {
	KUNIT_CASE_PARAM(adjust_range_case, adjust_gen_params),
	KUNIT_CASE(adjust_range_everywhere),
	KUNIT_CASE(adjust_range_reversed),
	KUNIT_CASE(range_in_vma_edges),
	KUNIT_CASE(want_share_whole_puds_only),
	KUNIT_CASE(want_share_flags),
	KUNIT_CASE(want_share_userfaultfd),
	KUNIT_CASE(shareable_where),
	KUNIT_CASE(shareable_whole_puds_only),
	KUNIT_CASE(shareable_lock),
	KUNIT_CASE(shareable_flags),
	KUNIT_CASE(shareable_soft_dirty),
	{}
};

static struct kunit_suite hugetlb_pmd_share_suite = {
	.name = "hugetlb_pmd_share",
	.test_cases = hugetlb_pmd_share_cases,
};

kunit_test_suite(hugetlb_pmd_share_suite);

MODULE_DESCRIPTION("KUnit tests of the rules for sharing hugetlb PMD tables");
MODULE_LICENSE("GPL");
