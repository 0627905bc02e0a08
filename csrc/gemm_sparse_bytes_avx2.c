#include "gemm_sparse_paths.h"

#if LP_X86
#include <immintrin.h>
#include <string.h>

/* Four rows of a quad, as 16-bit integers. */
LP_TARGET_AVX2 LP_ALWAYS_INLINE __m256i wide(const int8_t *values) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)values));
}

LP_TARGET_AVX2 LP_ALWAYS_INLINE __m256i four(const uint8_t *from, int is_signed) {
    int32_t word;
    memcpy(&word, from, sizeof word);
    const __m128i all = _mm_set1_epi32(word);
    return is_signed ? _mm256_cvtepi8_epi16(all) : _mm256_cvtepu8_epi16(all);
}

/* Sums of eight rows, from sums of pairs. */
LP_TARGET_AVX2 LP_ALWAYS_INLINE __m256i joined(__m256i low, __m256i high) {
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(low, high), 0xd8);
}

LP_TARGET_AVX2 LP_ALWAYS_INLINE void rows(const lp_sparse_byte_tile *t, size_t panel, size_t count, int is_signed) {
    const lp_sparse_bytes *w = t->w;
    const size_t first = panel * LP_SPARSE_ROWS, end = (size_t)w->starts[panel + 1u];
    const int here = (int)(w->n - first < LP_SPARSE_ROWS ? w->n - first : LP_SPARSE_ROWS);
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), low = _mm256_cmpgt_epi32(_mm256_set1_epi32(here), lane),
                  high = _mm256_cmpgt_epi32(_mm256_set1_epi32(here - 8), lane);
    __m256i sum[2][4];
    LP_UNROLL
    for (size_t r = 0; r < count; ++r) {
        LP_UNROLL
        for (size_t q = 0; q < 4u; ++q) {
            sum[r][q] = _mm256_setzero_si256();
        }
    }
    for (size_t s = (size_t)w->starts[panel]; s < end; ++s) {
        const int8_t *values = w->values + s * LP_SPARSE_QUAD;
        const uint8_t *x = t->a + w->quads[s] * count * 4u;
        const __m256i v[4] = {wide(values), wide(values + 16), wide(values + 32), wide(values + 48)};
        LP_UNROLL
        for (size_t r = 0; r < count; ++r) {
            const __m256i one = four(x + 4u * r, is_signed);
            LP_UNROLL
            for (size_t q = 0; q < 4u; ++q) {
                sum[r][q] = _mm256_add_epi32(sum[r][q], _mm256_madd_epi16(one, v[q]));
            }
        }
    }
    LP_UNROLL
    for (size_t r = 0; r < count; ++r) {
        int *c = t->c + r * w->n + first;
        _mm256_maskstore_epi32(c, low, joined(sum[r][0], sum[r][1]));
        _mm256_maskstore_epi32(c + 8, high, joined(sum[r][2], sum[r][3]));
    }
}

LP_TARGET_AVX2 void lp_sparse_bytes_avx2(const lp_sparse_byte_tile *t) {
    for (size_t panel = 0; panel < t->w->panels; ++panel) {
        if (t->rows == 2u) {
            if (t->is_signed) {
                rows(t, panel, 2u, 1);
            } else {
                rows(t, panel, 2u, 0);
            }
        } else {
            rows(t, panel, 1u, t->is_signed);
        }
    }
}
#else
typedef int lp_sparse_bytes_avx2_is_empty;
#endif
