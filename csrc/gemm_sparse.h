/* Products of float activations and weights with blocks of zeros: c = a w^T with a (m x k) and w (n x k).
 *
 *     c[i][j] = sum over the stored columns l of the panel of j, ascending, of a[i][l] w[j][l]
 *
 * each term added by a fused multiply-add to what is there, from zero on, so that every path returns the same bits.
 *
 * A panel is 16 rows of w, and of it those columns are stored in which one of its rows at least is not zero. Panel p has the stored
 * columns starts[p] to starts[p + 1], of which number s is column columns[s] of w and holds values[16 s + r] in row 16 p + r; rows
 * beyond n are zero. Blocks of zeros cost nothing where they are 16 rows high, or a multiple of that, and as wide as they like; what
 * is not stored is not multiplied either, so that infinities of a meet no zeros there.
 *
 * No function allocates: the caller hands over a workspace. None reads past the given lengths, or writes past them.
 */
#ifndef LILLIPUT_GEMM_SPARSE_H
#define LILLIPUT_GEMM_SPARSE_H

#include <stddef.h>
#include <stdint.h>

#include "cpu.h"
#include "status.h"
#include "workspace.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LP_SPARSE_ROWS ((size_t)16u)

typedef struct {
    const float *values;     /* 16 to a stored column */
    const uint32_t *columns; /* of w, below k */
    size_t stored;           /* columns there are: 16 times as many values */
    const uint64_t *starts;  /* of panels, never falling, from zero to `stored` */
    size_t panels;           /* ceil(n / 16); there is one start more */
    size_t n, k;
} lp_sparse_weights;

/* Bytes that the product wants. */
size_t lp_gemm_sparse_workspace(lp_path path, size_t m, size_t k);

/* Write the m x n products to `c`, which has room for `room` values; `a` has `size` of them. LP_BAD_SHAPE for starts and columns out of
 * order or out of range. */
lp_status lp_gemm_sparse(lp_path path, const float *a, size_t size, size_t m, const lp_sparse_weights *w, float *c, size_t room,
                         lp_workspace work);

#ifdef __cplusplus
}
#endif

#endif
