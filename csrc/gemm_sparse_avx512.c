#include "gemm_sparse_paths.h"

#if LP_X86
#include <immintrin.h>

LP_TARGET_AVX512 LP_ALWAYS_INLINE void rows(const lp_sparse_tile *t, size_t panel, size_t count) {
    const lp_sparse_weights *w = t->w;
    const size_t first = panel * LP_SPARSE_ROWS, left = w->n - first, end = (size_t)w->starts[panel + 1u];
    const __mmask16 lanes = left < LP_SPARSE_ROWS ? (__mmask16)((1u << left) - 1u) : (__mmask16)0xffffu;
    __m512 sum[16];
    LP_UNROLL
    for (size_t r = 0; r < count; ++r) {
        sum[r] = _mm512_setzero_ps();
    }
    for (size_t s = (size_t)w->starts[panel]; s < end; ++s) {
        const __m512 values = _mm512_loadu_ps(w->values + s * LP_SPARSE_ROWS);
        const float *x = t->a + w->columns[s] * count;
        LP_UNROLL
        for (size_t r = 0; r < count; ++r) {
            sum[r] = _mm512_fmadd_ps(values, _mm512_set1_ps(x[r]), sum[r]);
        }
    }
    LP_UNROLL
    for (size_t r = 0; r < count; ++r) {
        _mm512_mask_storeu_ps(t->c + r * w->n + first, lanes, sum[r]);
    }
}

LP_TARGET_AVX512 void lp_sparse_avx512(const lp_sparse_tile *t) {
    for (size_t panel = 0; panel < t->w->panels; ++panel) {
        switch (t->rows) {
        case 16u:
            rows(t, panel, 16u);
            break;
        case 4u:
            rows(t, panel, 4u);
            break;
        default:
            rows(t, panel, 1u);
        }
    }
}
#else
typedef int lp_sparse_avx512_is_empty;
#endif
