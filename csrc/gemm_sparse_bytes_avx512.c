#include "gemm_sparse_paths.h"

#if LP_X86
#include <immintrin.h>
#include <string.h>

LP_TARGET_AVX512 LP_ALWAYS_INLINE void rows(const lp_sparse_byte_tile *t, size_t panel, size_t count) {
    const lp_sparse_bytes *w = t->w;
    const size_t first = panel * LP_SPARSE_ROWS, left = w->n - first, end = (size_t)w->starts[panel + 1u];
    const __mmask16 lanes = left < LP_SPARSE_ROWS ? (__mmask16)((1u << left) - 1u) : (__mmask16)0xffffu;
    const __m512i offset = _mm512_set1_epi8(t->is_signed ? (char)-128 : (char)0);
    /* What 128 more in every activation adds; nothing for unsigned ones. */
    __m512i extra = _mm512_setzero_si512(), sum[16];
    LP_UNROLL
    for (size_t r = 0; r < count; ++r) {
        sum[r] = _mm512_setzero_si512();
    }
    for (size_t s = (size_t)w->starts[panel]; s < end; ++s) {
        const __m512i values = _mm512_loadu_si512(w->values + s * LP_SPARSE_QUAD);
        const uint8_t *x = t->a + w->quads[s] * count * 4u;
        extra = _mm512_dpbusd_epi32(extra, offset, values);
        LP_UNROLL
        for (size_t r = 0; r < count; ++r) {
            int32_t word;
            memcpy(&word, x + 4u * r, sizeof word);
            sum[r] = _mm512_dpbusd_epi32(sum[r], _mm512_set1_epi32(word), values);
        }
    }
    LP_UNROLL
    for (size_t r = 0; r < count; ++r) {
        _mm512_mask_storeu_epi32(t->c + r * w->n + first, lanes, _mm512_sub_epi32(sum[r], extra));
    }
}

LP_TARGET_AVX512 void lp_sparse_bytes_avx512(const lp_sparse_byte_tile *t) {
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
typedef int lp_sparse_bytes_avx512_is_empty;
#endif
