#include "gemm_binary_paths.h"

#if LP_X86
#include <immintrin.h>

#define ROWS ((size_t)4u)
#define COLUMNS ((size_t)4u)

/* The last one to eight words of a row: which of them there are, and which of their bits count. */
typedef struct {
    size_t start;
    __mmask8 there;
    __m512i valid;
} ending;

LP_TARGET_AVX512 static inline ending ending_of(const lp_product *p) {
    ending e;
    e.start = (p->words - 1u) / 8u * 8u;
    const unsigned last = (unsigned)(p->words - 1u - e.start);
    e.there = (__mmask8)((2u << last) - 1u);
    e.valid = _mm512_mask_set1_epi64(_mm512_set1_epi64(-1), (__mmask8)(1u << last), (long long)p->tail);
    return e;
}

/* The sums of four vectors of eight counts, as four integers. */
LP_TARGET_AVX512 LP_ALWAYS_INLINE __m128i sums(const __m512i *x) {
    const __m512i ab = _mm512_add_epi64(_mm512_unpacklo_epi64(x[0], x[1]), _mm512_unpackhi_epi64(x[0], x[1]));
    const __m512i cd = _mm512_add_epi64(_mm512_unpacklo_epi64(x[2], x[3]), _mm512_unpackhi_epi64(x[2], x[3]));
    const __m512i each = _mm512_add_epi64(_mm512_shuffle_i64x2(ab, cd, 0x88), _mm512_shuffle_i64x2(ab, cd, 0xdd));
    const __m512i both = _mm512_add_epi64(each, _mm512_shuffle_i64x2(each, each, 0xb1)); /* ab ab cd cd */
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm512_cvtepi64_epi32(both), 0x08));
}

/* `rows` rows of a with `columns` rows of b; both are constants, so that the loops unroll. */
LP_TARGET_AVX512 LP_ALWAYS_INLINE void block(const lp_product *p, const ending *e, size_t i, size_t j, size_t rows,
                                             size_t columns) {
    const uint64_t *a = p->a + i * p->words, *b = p->b + j * p->words;
    __m512i count[ROWS][COLUMNS], y[COLUMNS];
    for (size_t n = 0; n < columns; ++n) {
        y[n] = _mm512_maskz_loadu_epi64(e->there, b + n * p->words + e->start);
    }
    for (size_t m = 0; m < rows; ++m) {
        const __m512i x = _mm512_maskz_loadu_epi64(e->there, a + m * p->words + e->start);
        for (size_t n = 0; n < COLUMNS; ++n) {
            count[m][n] = _mm512_setzero_si512();
            if (n < columns) { /* of (x ^ y) & valid */
                count[m][n] = _mm512_popcnt_epi64(_mm512_ternarylogic_epi64(x, y[n], e->valid, 0x28));
            }
        }
    }
    for (size_t word = 0; word < e->start; word += 8u) {
        for (size_t n = 0; n < columns; ++n) {
            y[n] = _mm512_loadu_si512(b + n * p->words + word);
        }
        for (size_t m = 0; m < rows; ++m) {
            const __m512i x = _mm512_loadu_si512(a + m * p->words + word);
            for (size_t n = 0; n < columns; ++n) {
                count[m][n] = _mm512_add_epi64(count[m][n], _mm512_popcnt_epi64(_mm512_xor_si512(x, y[n])));
            }
        }
    }
    const __mmask8 written = (__mmask8)((1u << columns) - 1u);
    for (size_t m = 0; m < rows; ++m) {
        const __m128i product = _mm_sub_epi32(_mm_set1_epi32(p->total), _mm_slli_epi32(sums(count[m]), 1));
        _mm_mask_storeu_epi32(p->c + (i + m) * p->stride + j, written, product);
    }
}

LP_TARGET_AVX512 LP_ALWAYS_INLINE void columns_of(const lp_product *p, const ending *e, size_t j, size_t columns) {
    size_t i = 0;
    for (; p->m - i >= ROWS; i += ROWS) {
        block(p, e, i, j, ROWS, columns);
    }
    for (; i < p->m; ++i) {
        block(p, e, i, j, 1u, columns);
    }
}

LP_TARGET_AVX512 void lp_popcount_avx512(const lp_product *p) {
    if (p->words == 0u) {
        lp_popcount_portable(p);
        return;
    }
    const ending e = ending_of(p);
    size_t j = 0;
    for (; p->n - j >= COLUMNS; j += COLUMNS) {
        columns_of(p, &e, j, COLUMNS);
    }
    for (; j < p->n; ++j) {
        columns_of(p, &e, j, 1u);
    }
}
#else
typedef int lp_popcount_avx512_is_empty;
#endif
