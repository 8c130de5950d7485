// SPDX-License-Identifier: GPL-2.0

@multi@
identifier mm, start, end, stride_shift, freed_tables;
expression info;
@@
flush_tlb_mm_range(struct mm_struct *mm, unsigned long start, unsigned long end,
                   unsigned int stride_shift, bool freed_tables)
{
<...
(
 flush_tlb_multi(
-	mm_cpumask(mm)
+	stride_shift == PAGE_SHIFT ? mm_cpumask(mm) : cpumask_of(cpu)
 , info);
|
- flush_tlb_others(mm_cpumask(mm), info);
+ if (stride_shift == PAGE_SHIFT)
+	flush_tlb_others(mm_cpumask(mm), info);
)
...>
}
