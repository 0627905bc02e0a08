#include "gemm_sparse_paths.h"

#if LP_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))

TARGET LP_ALWAYS_INLINE void rows(const lp_sparse_tile *t, size_t panel, size_t count) {
    const lp_sparse_weights *w = t->w;
    const size_t first = panel * LP_SPARSE_ROWS, end = (size_t)w->starts[panel + 1u];
    const int here = (int)(w->n - first < LP_SPARSE_ROWS ? w->n - first : LP_SPARSE_ROWS);
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), low = _mm256_cmpgt_epi32(_mm256_set1_epi32(here), lane),
                  high = _mm256_cmpgt_epi32(_mm256_set1_epi32(here - 8), lane);
    __m256 sum[6][2];
    LP_UNROLL
    for (size_t r = 0; r < count; ++r) {
        sum[r][0] = sum[r][1] = _mm256_setzero_ps();
    }
    for (size_t s = (size_t)w->starts[panel]; s < end; ++s) {
        const __m256 v0 = _mm256_loadu_ps(w->values + s * LP_SPARSE_ROWS), v1 = _mm256_loadu_ps(w->values + s * LP_SPARSE_ROWS + 8u);
        const float *x = t->a + w->columns[s] * count;
        LP_UNROLL
        for (size_t r = 0; r < count; ++r) {
            const __m256 one = _mm256_set1_ps(x[r]);
            sum[r][0] = _mm256_fmadd_ps(v0, one, sum[r][0]);
            sum[r][1] = _mm256_fmadd_ps(v1, one, sum[r][1]);
        }
    }
    LP_UNROLL
    for (size_t r = 0; r < count; ++r) {
        _mm256_maskstore_ps(t->c + r * w->n + first, low, sum[r][0]);
        _mm256_maskstore_ps(t->c + r * w->n + first + 8u, high, sum[r][1]);
    }
}

TARGET void lp_sparse_avx2(const lp_sparse_tile *t) {
    for (size_t panel = 0; panel < t->w->panels; ++panel) {
        switch (t->rows) {
        case 6u:
            rows(t, panel, 6u);
            break;
        case 2u:
            rows(t, panel, 2u);
            break;
        default:
            rows(t, panel, 1u);
        }
    }
}
#else
typedef int lp_sparse_avx2_is_empty;
#endif
