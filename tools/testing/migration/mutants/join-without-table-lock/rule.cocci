// SPDX-License-Identifier: GPL-2.0

@@
@@
huge_pmd_share(...)
{
<...
(
- spin_lock(huge_pte_lockptr(...));
|
- spin_unlock(huge_pte_lockptr(...));
)
...>
}
