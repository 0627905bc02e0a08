#include "gemm_sparse_paths.h"

void lp_sparse_bytes_portable(const lp_sparse_byte_tile *t) {
    const lp_sparse_bytes *w = t->w;
    for (size_t panel = 0; panel < w->panels; ++panel) {
        const size_t first = panel * LP_SPARSE_ROWS, here = w->n - first < LP_SPARSE_ROWS ? w->n - first : LP_SPARSE_ROWS;
        for (size_t r = 0; r < t->rows; ++r) {
            int32_t sum[LP_SPARSE_ROWS] = {0};
            for (size_t s = (size_t)w->starts[panel]; s < (size_t)w->starts[panel + 1u]; ++s) {
                const int8_t *values = w->values + s * LP_SPARSE_QUAD;
                const uint8_t *from = t->a + (w->quads[s] * t->rows + r) * 4u;
                int32_t x[4];
                for (size_t l = 0; l < 4u; ++l) {
                    x[l] = t->is_signed ? (int32_t)(int8_t)from[l] : (int32_t)from[l];
                }
                for (size_t j = 0; j < LP_SPARSE_ROWS; ++j) {
                    const int8_t *v = values + 4u * j;
                    sum[j] += x[0] * v[0] + x[1] * v[1] + x[2] * v[2] + x[3] * v[3];
                }
            }
            for (size_t j = 0; j < here; ++j) {
                t->c[r * w->n + first + j] = sum[j];
            }
        }
    }
}
