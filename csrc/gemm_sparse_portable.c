#include <math.h>

#include "gemm_sparse_paths.h"

void lp_sparse_portable(const lp_sparse_tile *t) {
    const lp_sparse_weights *w = t->w;
    for (size_t panel = 0; panel < w->panels; ++panel) {
        const size_t first = panel * LP_SPARSE_ROWS, here = w->n - first < LP_SPARSE_ROWS ? w->n - first : LP_SPARSE_ROWS;
        for (size_t r = 0; r < t->rows; ++r) {
            float sum[LP_SPARSE_ROWS] = {0.0f};
            for (size_t s = (size_t)w->starts[panel]; s < (size_t)w->starts[panel + 1u]; ++s) {
                const float *values = w->values + s * LP_SPARSE_ROWS, x = t->a[w->columns[s] * t->rows + r];
                for (size_t j = 0; j < LP_SPARSE_ROWS; ++j) {
                    sum[j] = fmaf(values[j], x, sum[j]);
                }
            }
            for (size_t j = 0; j < here; ++j) {
                t->c[r * w->n + first + j] = sum[j];
            }
        }
    }
}
