/* Products of sign matrices: c = a b^T with a (m x k) and b (n x k) in {-1, +1}, packed as rows of signs (signs.h).
 *
 *     c[i][j] = k - 2 popcount(a[i] xor b[j])        int32, exact for every k up to 2^31 - 1
 *
 * Two ways to count, chosen by shape (gemm_binary.c): word by word with xor and population count, or 64 to 512 columns of b
 * at a time with bit-sliced counters (gemm_sliced.inc), which needs many rows of a. Bits beyond k are ignored.
 *
 * No function allocates: the caller hands over a workspace. None reads past the given lengths, or writes past them.
 */
#ifndef LILLIPUT_GEMM_BINARY_H
#define LILLIPUT_GEMM_BINARY_H

#include "signs.h"
#include "workspace.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes that the product of these sizes wants; 0 where it wants none, or the path cannot run. At most 3 MiB. */
size_t lp_gemm_binary_workspace(lp_path path, size_t m, size_t n, size_t k);

/* Write the m x n products to `c`, which has room for `size` values. LP_BAD_SHAPE when a and b differ in columns. */
lp_status lp_gemm_binary(lp_path path, const lp_signs *a, const lp_signs *b, int32_t *c, size_t size, lp_workspace work);

#ifdef __cplusplus
}
#endif

#endif
