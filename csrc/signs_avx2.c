#include "signs_paths.h"

#if LP_X86
#include <immintrin.h>

/* Lanes 0 ... count - 1 of eight, as a mask for maskload. */
LP_TARGET_AVX2 static inline __m256i lanes(size_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(count < 8u ? count : 8u)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

LP_TARGET_AVX2 void lp_sign_row_avx2(const float *values, size_t columns, uint64_t *words) {
    for (size_t start = 0; start < columns; start += 64u) {
        uint64_t word = 0u;
        for (size_t i = 0; i < 64u && start + i < columns; i += 8u) {
            const __m256i here = lanes(columns - start - i);
            const __m256 x = _mm256_maskload_ps(values + start + i, here);
            const __m256 positive = _mm256_and_ps(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GE_OQ), _mm256_castsi256_ps(here));
            word |= (uint64_t)(unsigned)_mm256_movemask_ps(positive) << i;
        }
        words[start / 64u] = word;
    }
}

LP_TARGET_AVX2 void lp_threshold_row_avx2(const int32_t *values, const lp_thresholds *thresholds, uint64_t *words) {
    for (size_t start = 0; start < thresholds->columns; start += 64u) {
        uint64_t word = 0u, used = 0u;
        for (size_t i = 0; i < 64u && start + i < thresholds->columns; i += 8u) {
            const __m256i here = lanes(thresholds->columns - start - i);
            const __m256i x = _mm256_maskload_epi32(values + start + i, here);
            const __m256i least = _mm256_maskload_epi32(thresholds->least + start + i, here);
            const __m256i reached = _mm256_andnot_si256(_mm256_cmpgt_epi32(least, x), here);
            word |= (uint64_t)(unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(reached)) << i;
            used |= (uint64_t)(unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(here)) << i;
        }
        words[start / 64u] = word ^ (thresholds->flip[start / 64u] & used);
    }
}
#else
typedef int lp_signs_avx2_is_empty;
#endif
