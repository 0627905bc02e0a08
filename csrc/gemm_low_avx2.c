#include "gemm_low_paths.h"

#if LP_X86
#include <immintrin.h>
#include <string.h>

#define ROWS ((size_t)4u)    /* of a, at once */
#define GROUPS ((size_t)128u) /* of four columns, in a tile: their codes as bytes, 16 rows of w */

typedef struct {
    const lp_low_product *p;
    size_t column;        /* of w, where the panel begins */
    size_t first, groups; /* of the tile */
    __m256i low, high;    /* columns of c that there are */
} piece;

LP_TARGET_AVX2 static void decode(const lp_low_product *p, const uint8_t *panel, size_t first, size_t groups, __m256i *tile) {
    const size_t fields = 8u / p->bits;
    const __m256i mask = _mm256_set1_epi8((char)((1u << p->bits) - 1u));
    for (size_t g = 0; g < groups; ++g) {
        const __m256i *chunk = (const __m256i *)(const void *)(panel + (first + g) / fields * 64u);
        const __m128i shift = _mm_cvtsi32_si128((int)((first + g) % fields * p->bits));
        tile[2u * g] = _mm256_and_si256(_mm256_srl_epi16(_mm256_loadu_si256(chunk), shift), mask);
        tile[2u * g + 1u] = _mm256_and_si256(_mm256_srl_epi16(_mm256_loadu_si256(chunk + 1), shift), mask);
    }
}

/* Sums of pairs of products. The operand whose sign is ignored comes first: codes are at most 15, so four of these sums stay
 * within 4 * 2 * 15 * 255 = 30600 and nothing saturates. */
LP_TARGET_AVX2 LP_ALWAYS_INLINE __m256i pairs(__m256i a, __m256i u, int is_signed) {
    return is_signed ? _mm256_maddubs_epi16(u, a) : _mm256_maddubs_epi16(a, u);
}

LP_TARGET_AVX2 LP_ALWAYS_INLINE __m256i four(const uint8_t *from, size_t bytes) {
    int32_t word = 0;
    memcpy(&word, from, bytes);
    return _mm256_set1_epi32(word);
}

/* `groups` (one or four) groups from g on, of which the last reaches `bytes` columns far. */
LP_TARGET_AVX2 LP_ALWAYS_INLINE void add(__m256i *sum, const uint8_t *a, const __m256i *tile, size_t groups, size_t bytes,
                                         int is_signed) {
    const __m256i one = _mm256_set1_epi16(1);
    __m256i low = _mm256_setzero_si256(), high = low;
    LP_UNROLL
    for (size_t g = 0; g < groups; ++g) {
        const __m256i x = four(a + 4u * g, g + 1u == groups ? bytes : 4u);
        low = _mm256_add_epi16(low, pairs(x, tile[2u * g], is_signed));
        high = _mm256_add_epi16(high, pairs(x, tile[2u * g + 1u], is_signed));
    }
    sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(low, one));
    sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(high, one));
}

LP_TARGET_AVX2 LP_ALWAYS_INLINE void rows(const piece *t, size_t i, size_t count, int is_signed) {
    const lp_low_product *p = t->p;
    const uint8_t *a = p->a + i * p->k + 4u * t->first;
    const __m256i *tile = p->tile;
    int *c = p->c + i * p->n + t->column;
    const size_t whole = p->k / 4u - t->first, full = whole < t->groups ? whole : t->groups;
    __m256i sum[ROWS][2];
    LP_UNROLL
    for (size_t r = 0; r < count; ++r) {
        sum[r][0] = t->first == 0u ? _mm256_setzero_si256() : _mm256_maskload_epi32(c + r * p->n, t->low);
        sum[r][1] = t->first == 0u ? _mm256_setzero_si256() : _mm256_maskload_epi32(c + r * p->n + 8, t->high);
    }
    size_t g = 0;
    for (; full - g >= 4u; g += 4u) {
        LP_UNROLL
        for (size_t r = 0; r < count; ++r) {
            add(sum[r], a + r * p->k + 4u * g, tile + 2u * g, 4u, 4u, is_signed);
        }
    }
    for (; g < t->groups; ++g) {
        LP_UNROLL
        for (size_t r = 0; r < count; ++r) {
            add(sum[r], a + r * p->k + 4u * g, tile + 2u * g, 1u, g < full ? 4u : p->k % 4u, is_signed);
        }
    }
    LP_UNROLL
    for (size_t r = 0; r < count; ++r) {
        if (4u * (t->first + t->groups) >= p->k) {
            const __m256i row = _mm256_set1_epi32(p->sums[i + r]);
            const __m128i shift = _mm_cvtsi32_si128((int)lp_low_shift(p->bits));
            sum[r][0] = _mm256_sub_epi32(_mm256_sll_epi32(sum[r][0], shift), row);
            sum[r][1] = _mm256_sub_epi32(_mm256_sll_epi32(sum[r][1], shift), row);
        }
        _mm256_maskstore_epi32(c + r * p->n, t->low, sum[r][0]);
        _mm256_maskstore_epi32(c + r * p->n + 8, t->high, sum[r][1]);
    }
}

LP_TARGET_AVX2 LP_ALWAYS_INLINE void all_rows(const piece *t, int is_signed) {
    size_t i = 0;
    for (; t->p->m - i >= ROWS; i += ROWS) {
        rows(t, i, ROWS, is_signed);
    }
    for (; i < t->p->m; ++i) {
        rows(t, i, 1u, is_signed);
    }
}

LP_TARGET_AVX2 void lp_low_avx2(const lp_low_product *p) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const size_t groups = (p->k + 3u) / 4u;
    for (size_t column = 0; column < p->n; column += 16u) {
        const int here = (int)(p->n - column < 16u ? p->n - column : 16u);
        piece t = {.p = p, .column = column, .low = _mm256_cmpgt_epi32(_mm256_set1_epi32(here), lane),
                   .high = _mm256_cmpgt_epi32(_mm256_set1_epi32(here - 8), lane)};
        for (t.first = 0; t.first < groups; t.first += GROUPS) {
            t.groups = groups - t.first < GROUPS ? groups - t.first : GROUPS;
            decode(p, p->panels + column / 16u * p->panel, t.first, t.groups, p->tile);
            if (p->is_signed) {
                all_rows(&t, 1);
            } else {
                all_rows(&t, 0);
            }
        }
    }
}
#else
typedef int lp_low_avx2_is_empty;
#endif
