// SPDX-License-Identifier: GPL-2.0
// Takes the protection of pmd-share-range out.  The function looked at one address in each PUD, in steps
// from the start of the range, and widened the range to those PUDs.  The steps may pass over the PUD in
// which the range ends.

@@
identifier start, end, v_start, v_end;
symbol PUD_SIZE;
@@
adjust_range_if_pmd_sharing_possible(..., unsigned long *start, unsigned long *end)
{
...
- if (*start > v_start)
-	*start = ALIGN_DOWN(*start, PUD_SIZE);
- if (*end < v_end)
-	*end = ALIGN(*end, PUD_SIZE);
+{
+	unsigned long addr;
+	for (addr = *start; addr < *end; addr += PUD_SIZE) {
+		if (addr - addr % PUD_SIZE < v_start || addr - addr % PUD_SIZE >= v_end)
+			continue;
+		*start = min(*start, addr - addr % PUD_SIZE);
+		*end = max(*end, addr - addr % PUD_SIZE + PUD_SIZE);
+	}
+}
}
