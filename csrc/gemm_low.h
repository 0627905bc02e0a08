/* Products of 8-bit activations and low-bit weights: c = a w^T with a (m x k), int8 or uint8, and w (n x k).
 *
 *     c[i][j] = sum over l of a[i][l] w[j][l]        int32, exact: k is at most 2^20, so that no sum leaves the range
 *
 *     bits 4   w in [-8, 7]      code: two's complement
 *     bits 2   w in [-2, 1]      code: two's complement; ternary weights are those without -2
 *     bits 1   w in {-1, +1}     code: 1 for +1, 0 for -1
 *
 * Weights are packed into panels once (lp_low_pack). A panel holds 16 rows of w, a chunk of it 32 / bits columns in 64 bytes:
 * byte 4 r + t of a chunk holds, in its bits [f bits, (f + 1) bits), row r, column 4 f + t of the chunk, as the unsigned code
 *
 *     u = w + 8,   w + 2   or   (w + 1) / 2
 *
 * so that one shift and one mask give 64 codes in the order in which dot-product instructions want them. Panel p is the bytes
 * [p s, (p + 1) s) with s = 64 ceil(k bits / 32), its chunks in the order of the columns. Codes beyond row n or column k are
 * zero. The kernels add up a u, which is small enough that no instruction saturates, and take away what the offset added,
 * which is a multiple of the sum of the row of a.
 *
 * No function allocates: the caller hands over a workspace. None reads past the given lengths, or writes past them.
 */
#ifndef LILLIPUT_GEMM_LOW_H
#define LILLIPUT_GEMM_LOW_H

#include <stddef.h>
#include <stdint.h>

#include "cpu.h"
#include "status.h"
#include "workspace.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LP_LOW_COLUMNS ((size_t)1048576u) /* the largest k */

typedef struct {
    const uint8_t *panels;
    size_t size; /* bytes there are */
    size_t n, k;
    unsigned bits;
} lp_low_weights;

typedef struct {
    const void *values; /* int8_t if is_signed, uint8_t otherwise; m * k of them */
    size_t size;        /* values there are */
    size_t m;
    int is_signed;
} lp_activations;

/* Bytes of the panels; 0 for none, for bad bits, k > LP_LOW_COLUMNS, or where the size leaves the range of its type. */
size_t lp_low_size(size_t n, size_t k, unsigned bits);

/* Pack n * k codes, stored as lp_pack stores them (`size` bytes of them), into panels (`room` bytes). The n, k and bits are
 * those of `shape`, whose other fields are not read. */
lp_status lp_low_pack(const uint8_t *codes, size_t size, const lp_low_weights *shape, uint8_t *panels, size_t room);

/* Bytes that the product wants: under 36 KiB, and four for each row of a; 0 where it wants none. */
size_t lp_gemm_low_workspace(lp_path path, size_t m, size_t k);

/* Write the m x n products to `c`, which has room for `size` values. */
lp_status lp_gemm_low(lp_path path, const lp_activations *a, const lp_low_weights *w, int32_t *c, size_t size, lp_workspace work);

#ifdef __cplusplus
}
#endif

#endif
