// SPDX-License-Identifier: GPL-2.0
/*
 * Runs mm/tests/hugetlb_pmd_share_kunit.c in user space, on the text of the
 * functions that it tests, which is in functions.inc. Here is what both need of
 * the kernel: of KUnit, of a VMA, of page tables.
 *
 * What the kernel's own macros and types of the same name are, and how much a page,
 * a PMD and a PUD map, test_kunit.py says on gcc's command line.
 *
 * Says of each test, and each parameter of it, if it is ok; ends with 1 if one
 * is not, or if no test ran.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define BITS_PER_LONG		64
#define BIT(nr)			(1UL << (nr))
#define ULONG_MAX		(~0UL)
#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))

#define PMD_SIZE		BIT(PMD_SHIFT)
#define PUD_SIZE		BIT(PUD_SHIFT)
#define PUD_MASK		(~(PUD_SIZE - 1))
#define pmd_index(addr)		((addr) / PMD_SIZE % (PUD_SIZE / PMD_SIZE))

#define VM_READ			BIT(0)
#define VM_WRITE		BIT(1)
#define VM_SHARED		BIT(3)
#define VM_MAYREAD		BIT(4)
#define VM_MAYWRITE		BIT(5)
#define VM_MAYEXEC		BIT(6)
#define VM_MAYSHARE		BIT(7)
#define VM_UFFD_MISSING		BIT(9)
#define VM_UFFD_WP		BIT(12)
#define VM_LOCKED		BIT(13)
#define VM_LOCKONFAULT		BIT(19)
#define VM_HUGETLB		BIT(22)
#define VM_SOFTDIRTY		BIT(27)
#define VM_UFFD_MINOR		BIT(41)
#define VM_LOCKED_MASK		(VM_LOCKED | VM_LOCKONFAULT)
#define CONFIG_USERFAULTFD	1

static unsigned long min(unsigned long a, unsigned long b)
{
	return a < b ? a : b;
}

static unsigned long max(unsigned long a, unsigned long b)
{
	return a > b ? a : b;
}

static unsigned long ALIGN_DOWN(unsigned long x, unsigned long size)
{
	return x & ~(size - 1);
}

static unsigned long ALIGN(unsigned long x, unsigned long size)
{
	return ALIGN_DOWN(x + size - 1, size);
}

struct hugetlb_vma_lock {
	int taken;
};

struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	unsigned long vm_pgoff;
	vm_flags_t vm_flags;
	void *vm_private_data;
};

static void vm_flags_init(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags = flags;
}

/* 7.3's names for what 6.12 has in the VMA's fields. */
#ifdef HAS_UFFD_RWP
#define VM_UFFD_RWP		BIT(42)
#define VMA_UFFD_RWP		VM_UFFD_RWP
#endif
#define VMA_UFFD_WP		VM_UFFD_WP
#define VMA_UFFD_MINOR		VM_UFFD_MINOR
#define mk_vma_flags_from_masks(a, b, c)	((a) | (b) | (c))
#define vma_test_any_mask(vma, flags)		((vma)->vm_flags & (flags))
#define vma_start_pgoff(vma)			((vma)->vm_pgoff)

#include "functions.inc"

#define KUNIT_PARAM_DESC_SIZE	128

struct kunit {
	const void *param_value;
	bool failed;
	const char *skipped;
	jmp_buf end;
};

struct kunit_case {
	void (*run_case)(struct kunit *test);
	const char *name;
	const void *(*next)(const void *prev, char *desc);
};

struct kunit_suite {
	const char *name;
	struct kunit_case *test_cases;
};

#define KUNIT_CASE(test)		{ test, #test, NULL }
#define KUNIT_CASE_PARAM(test, next)	{ test, #test, next }
#define kunit_test_suite(suite)		static struct kunit_suite *suite_to_run = &(suite)

/* The member must be the first of each element: the cases' descriptions are. */
static const void *next_param(const void *first, size_t size, size_t count,
			      const void *prev, const char *member, char *desc)
{
	const char *next = prev ? prev + size : first;

	if (next >= (const char *)first + size * count)
		return NULL;
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%s: %s", member,
		 *(const char * const *)next);
	return next;
}

#define KUNIT_ARRAY_PARAM_DESC(name, array, member)				\
static const void *name##_gen_params(const void *prev, char *desc)		\
{										\
	__auto_type all = &(array);						\
										\
	return next_param(all, sizeof((*all)[0]), ARRAY_SIZE(*all), prev,	\
			  #member, desc);					\
}

/* Returns the test if it has failed now. */
static struct kunit *expect(struct kunit *test, bool ok, int line,
			    const char *what, const char *format, ...)
{
	va_list args;

	if (ok)
		return NULL;
	test->failed = true;
	printf("    # line %d: %s", line, what);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	return test;
}

static void end_test(struct kunit *test)
{
	if (test)
		longjmp(test->end, 1);
}

static void kunit_skip(struct kunit *test, const char *why)
{
	test->skipped = why;
	longjmp(test->end, 1);
}

static void expect_eq(struct kunit *test, unsigned long a, unsigned long b,
		      int line, const char *what)
{
	expect(test, a == b, line, what, ": %#lx and %#lx", a, b);
}

#define KUNIT_EXPECT_TRUE(test, x)						\
	expect(test, x, __LINE__, #x " is false", " ")
#define KUNIT_EXPECT_FALSE(test, x)						\
	expect(test, !(x), __LINE__, #x " is true", " ")
#define KUNIT_EXPECT_FALSE_MSG(test, x, ...)					\
	expect(test, !(x), __LINE__, #x " is true: ", __VA_ARGS__)
#define KUNIT_EXPECT_EQ(test, a, b)						\
	expect_eq(test, a, b, __LINE__, #a " is not " #b)
#define KUNIT_EXPECT_GE(test, a, b)						\
	expect(test, (a) >= (b), __LINE__, #a " is less than " #b, " ")
#define KUNIT_EXPECT_LE(test, a, b)						\
	expect(test, (a) <= (b), __LINE__, #a " is more than " #b, " ")
#define KUNIT_EXPECT_EQ_MSG(test, a, b, ...)					\
	expect(test, (a) == (b), __LINE__, #a " is not " #b ": ", __VA_ARGS__)
#define KUNIT_ASSERT_TRUE_MSG(test, x, ...)					\
	end_test(expect(test, x, __LINE__, #x " is false: ", __VA_ARGS__))

#include "mm/tests/hugetlb_pmd_share_kunit.c"

static unsigned int tests, failed;

static void run(struct kunit_case *c, const void *param, const char *desc)
{
	static struct kunit test;

	memset(&test, 0, sizeof(test));
	test.param_value = param;
	if (!setjmp(test.end))
		c->run_case(&test);
	tests++;
	failed += test.failed;
	printf("%s %u %s%s%s%s%s\n", test.failed ? "not ok" : "ok", tests, c->name,
	       param ? ": " : "", desc, test.skipped ? " # SKIP " : "",
	       test.skipped ? test.skipped : "");
}

int main(void)
{
	char desc[KUNIT_PARAM_DESC_SIZE];
	struct kunit_case *c;
	const void *param;

	for (c = suite_to_run->test_cases; c->run_case; c++) {
		if (!c->next)
			run(c, NULL, "");
		else
			for (param = c->next(NULL, desc); param;
			     param = c->next(param, desc))
				run(c, param, desc);
	}
	printf("%s: %u tests, %u failed\n", suite_to_run->name, tests, failed);
	return !tests || failed;
}
