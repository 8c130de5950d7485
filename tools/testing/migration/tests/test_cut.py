# SPDX-License-Identifier: GPL-2.0
"""What no rule of coccinelle can match is left out of a file, and nothing else is."""

import re

import pytest

from lab.kernel import cut

FILE = """\
#define on(x)	do { wanted(x); } while (0)

static int with(struct page *page)
{
	return wanted(page);
}

/* Of no interest. */
static int without(struct page *page,
		   int unused)
{
	if (page) {
		other(page);
	}
#ifdef CONFIG_A
	a();
#else
	b();
#endif
	return 0;
}

#ifdef CONFIG_B
int two_heads(int b)
#else
int two_heads(void)
#endif
{
	return 1;
}

int two_ends(void)
{
#ifdef CONFIG_C
	return 1;
}
#else
	return 2;
}
#endif

int wanted(struct page *page)
{
	return 3;
}
struct wanted_or_not
{
	int field;
};
int one_line(void) { return 4; }
int last(void)
{
	return unwanted(wanted2);
}
"""


def test_lines_stay_where_they_are() -> None:
    left = cut.cut(FILE, re.compile(r"\bwanted\b")).split("\n")
    whole = FILE.split("\n")
    assert len(left) == len(whole)
    assert {line for line, was in zip(left, whole) if line != was} == {""}
    lost = {was for line, was in zip(left, whole) if line != was}
    # Head, braces and what is beside the functions stay.
    assert lost == {"	if (page) {", "		other(page);", "	}", "#ifdef CONFIG_A", "	a();",
                    "#else", "	b();", "#endif", "	return 0;", "	return 1;",
                    "	return unwanted(wanted2);"}
    assert left.count("	return 1;") == 1     # of two_ends()


@pytest.mark.parametrize("text", ["", "int a;", "{\n", "}\n{\n", "int f(void)\n{\n\treturn 0;\n"])
def test_what_has_no_function_is_as_it_was(text: str) -> None:
    assert cut.cut(text, re.compile("a")) == text


@pytest.mark.parametrize("variables, body, names, others", [
    ("position p;", "huge_pmd_unshare@p(...)", ["huge_pmd_unshare(mm)"],
     ["__huge_pmd_unshare()", "huge_pmd_unshared", "p"]),
    ("identifier fn = {lock, unlock};\nposition p;", "fn@p(...)", ["lock", "x unlock y"],
     ["fn", "locked"]),
    ("identifier fn = {a,\n                 b}, other;", "fn(other)", ["a", "b"], ["other"]),
    ("identifier fn =~ \"^hugetlb_\";", "fn(...)", ["hugetlb_walk()"], ["huge_pte_offset"]),
    ("identifier fn =~ \"flush|sync\";", "fn(...)", ["tlb_flush()", "do_sync"], ["fn"]),
    ("identifier vma;", "vma->vm_flags", ["vm_flags"], ["vma"]),
    ("expression e;", "(\nfn(e, PUD_SIZE)\n|\ne & PUD_MASK\n)", ["PUD_MASK", "PUD_SIZE", "fn"],
     ["e"]),
    # Of a rule about a function, that function is enough: the rest is asked of it.
    ("identifier inside = {f};\nidentifier fn =~ \"x\";",
     "inside(...)\n{\n<...\nfn@p(...)\n...>\n}", ["f"], ["x", "inside", "fn"]),
    ("", "f(struct mmu_gather *tlb, ...) { ... when != g() }", ["f"], ["g", "mmu_gather"]),
    ("statement S;", "for (addr = x; ...; ...) S", ["addr"], ["for", "S"]),
])
def test_names_of_a_rule(variables: str, body: str, names: list[str], others: list[str]) -> None:
    found = cut.names([(variables, body)])
    assert found
    for text in names:
        assert found.search(text), text
    for text in others:
        assert not found.search(text), text


@pytest.mark.parametrize("variables, body", [
    ("identifier fn;\nposition p;", "fn@p(...)"),
    ("expression e;", "return e;"),
    ("identifier fn =~ \"fl[ua]sh\";", "fn(...)"),       # which names these are, is not said
    ("identifier fn;", "fn(...) { ... }"),
])
def test_a_rule_that_names_nothing(variables: str, body: str) -> None:
    """Then nothing may be left out, whatever others name."""
    assert cut.names([(variables, body)]) is None
    assert cut.names([("", "named(...)"), (variables, body)]) is None
