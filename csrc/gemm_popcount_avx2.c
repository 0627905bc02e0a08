#include "gemm_binary_paths.h"

#if LP_X86
#include <immintrin.h>

#define COLUMNS ((size_t)4u)

/* Set bits of each word: a table of 16 for each half of a byte, then the sum of each eight bytes (Mula,
 * Kurz and Lemire 2018). */
LP_TARGET_AVX2 LP_ALWAYS_INLINE __m256i popcount(__m256i x) {
    const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m256i half = _mm256_set1_epi8(0x0f);
    const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(x, half));
    const __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), half));
    return _mm256_sad_epu8(_mm256_add_epi8(low, high), _mm256_setzero_si256());
}

/* The last one to four words of a row: which of them there are, and which of their bits count. */
typedef struct {
    size_t start;
    __m256i there, valid;
} ending;

LP_TARGET_AVX2 static inline ending ending_of(const lp_product *p) {
    ending e;
    e.start = (p->words - 1u) / 4u * 4u;
    const __m256i word = _mm256_setr_epi64x(0, 1, 2, 3), last = _mm256_set1_epi64x((long long)(p->words - 1u - e.start));
    e.there = _mm256_cmpgt_epi64(_mm256_add_epi64(last, _mm256_set1_epi64x(1)), word);
    e.valid = _mm256_blendv_epi8(e.there, _mm256_set1_epi64x((long long)p->tail), _mm256_cmpeq_epi64(word, last));
    return e;
}

/* One row of a with `columns` (a constant, so that the loops unroll) rows of b. */
LP_TARGET_AVX2 LP_ALWAYS_INLINE void block(const lp_product *p, const ending *e, size_t i, size_t j, size_t columns) {
    const long long *a = (const long long *)(const void *)(p->a + i * p->words);
    const long long *b = (const long long *)(const void *)(p->b + j * p->words);
    __m256i count[COLUMNS];
    const __m256i left = _mm256_maskload_epi64(a + e->start, e->there);
    for (size_t n = 0; n < columns; ++n) {
        const __m256i right = _mm256_maskload_epi64(b + n * p->words + e->start, e->there);
        count[n] = popcount(_mm256_and_si256(_mm256_xor_si256(left, right), e->valid));
    }
    for (size_t word = 0; word < e->start; word += 4u) {
        const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(a + word));
        for (size_t n = 0; n < columns; ++n) {
            const __m256i y = _mm256_loadu_si256((const __m256i *)(const void *)(b + n * p->words + word));
            count[n] = _mm256_add_epi64(count[n], popcount(_mm256_xor_si256(x, y)));
        }
    }
    for (size_t n = 0; n < columns; ++n) {
        const __m128i pair = _mm_add_epi64(_mm256_castsi256_si128(count[n]), _mm256_extracti128_si256(count[n], 1));
        const int64_t all = _mm_extract_epi64(pair, 0) + _mm_extract_epi64(pair, 1);
        p->c[i * p->stride + j + n] = (int32_t)(p->total - 2 * all);
    }
}

LP_TARGET_AVX2 void lp_popcount_avx2(const lp_product *p) {
    if (p->words == 0u) {
        lp_popcount_portable(p);
        return;
    }
    const ending e = ending_of(p);
    size_t j = 0;
    for (; p->n - j >= COLUMNS; j += COLUMNS) {
        for (size_t i = 0; i < p->m; ++i) {
            block(p, &e, i, j, COLUMNS);
        }
    }
    for (; j < p->n; ++j) {
        for (size_t i = 0; i < p->m; ++i) {
            block(p, &e, i, j, 1u);
        }
    }
}
#else
typedef int lp_popcount_avx2_is_empty;
#endif
