#include "signs_paths.h"

#if LP_X86
#include <immintrin.h>

static inline __mmask16 lanes(size_t count) { return (__mmask16)(count < 16u ? (1u << count) - 1u : 0xffffu); }

LP_TARGET_AVX512 void lp_sign_row_avx512(const float *values, size_t columns, uint64_t *words) {
    for (size_t start = 0; start < columns; start += 64u) {
        uint64_t word = 0u;
        for (size_t i = 0; i < 64u && start + i < columns; i += 16u) {
            const __mmask16 here = lanes(columns - start - i);
            const __m512 x = _mm512_maskz_loadu_ps(here, values + start + i);
            word |= (uint64_t)_mm512_mask_cmp_ps_mask(here, x, _mm512_setzero_ps(), _CMP_GE_OQ) << i;
        }
        words[start / 64u] = word;
    }
}

LP_TARGET_AVX512 void lp_threshold_row_avx512(const int32_t *values, const lp_thresholds *thresholds, uint64_t *words) {
    for (size_t start = 0; start < thresholds->columns; start += 64u) {
        uint64_t word = 0u, used = 0u;
        for (size_t i = 0; i < 64u && start + i < thresholds->columns; i += 16u) {
            const __mmask16 here = lanes(thresholds->columns - start - i);
            const __m512i x = _mm512_maskz_loadu_epi32(here, values + start + i);
            const __m512i least = _mm512_maskz_loadu_epi32(here, thresholds->least + start + i);
            word |= (uint64_t)_mm512_mask_cmpge_epi32_mask(here, x, least) << i;
            used |= (uint64_t)here << i;
        }
        words[start / 64u] = word ^ (thresholds->flip[start / 64u] & used);
    }
}
#else
typedef int lp_signs_avx512_is_empty;
#endif
