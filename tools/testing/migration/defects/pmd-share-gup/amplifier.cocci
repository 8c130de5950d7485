// SPDX-License-Identifier: GPL-2.0
// Makes a race wider that is there without it.  get_user_pages_fast() has found a PMD table, and waits for
// 50 ms before it looks at an entry of it, if that is one of a huge page.

@@
identifier fn = {gup_pmd_range, gup_fast_pmd_range};
expression E;
@@
fn(...)
{
<...
pmdp = E;
+if (pmd_present(*pmdp) && pmd_trans_huge(*pmdp)) {
+	u64 until = ktime_get_ns() + 50 * NSEC_PER_MSEC;
+
+	while (ktime_get_ns() < until)
+		cpu_relax();
+}
...>
}
