#include "rans_paths.h"

#if LP_X86
#include <immintrin.h>

/* Where the words of a vector go, by which of its eight lanes take one: for each lane the number of lanes before it that do. */
typedef struct {
    uint8_t lane[256][8];
} spread_table;

#define LP_BITS(m) (((m) & 1) + ((m) >> 1 & 1) + ((m) >> 2 & 1) + ((m) >> 3 & 1) + ((m) >> 4 & 1) + ((m) >> 5 & 1) + ((m) >> 6 & 1))
#define LP_BEFORE(m, i) LP_BITS((m) & ((1 << (i)) - 1))
#define LP_ROW(m) {LP_BEFORE(m, 0), LP_BEFORE(m, 1), LP_BEFORE(m, 2), LP_BEFORE(m, 3), LP_BEFORE(m, 4), LP_BEFORE(m, 5), LP_BEFORE(m, 6), LP_BEFORE(m, 7)}
#define LP_ROWS4(m) LP_ROW(m), LP_ROW((m) + 1), LP_ROW((m) + 2), LP_ROW((m) + 3)
#define LP_ROWS16(m) LP_ROWS4(m), LP_ROWS4((m) + 4), LP_ROWS4((m) + 8), LP_ROWS4((m) + 12)
#define LP_ROWS64(m) LP_ROWS16(m), LP_ROWS16((m) + 16), LP_ROWS16((m) + 32), LP_ROWS16((m) + 48)

static const spread_table spread = {{LP_ROWS64(0), LP_ROWS64(64), LP_ROWS64(128), LP_ROWS64(192)}};

typedef struct {
    __m128i bits, symbol, second;
    __m256i slot, field, low, first, nibble;
    const uint32_t *slots;
} constants;

/* One symbol of each of eight lanes: the entries, and the states before words are taken. */
LP_ALWAYS_INLINE LP_TARGET_AVX2 __m256i step(const constants *c, __m256i *x)
{
    const __m256i entry = _mm256_i32gather_epi32((const int *)(const void *)c->slots, _mm256_and_si256(*x, c->slot), 4);
    const __m256i frequency = _mm256_and_si256(_mm256_srl_epi32(entry, c->symbol), c->field);
    *x = _mm256_add_epi32(_mm256_mullo_epi32(frequency, _mm256_srl_epi32(*x, c->bits)), _mm256_srl_epi32(entry, c->second));
    return entry;
}

/* Words for the lanes whose state is below 2^16. */
LP_ALWAYS_INLINE LP_TARGET_AVX2 const uint8_t *take(__m256i *x, const uint8_t *words)
{
    const __m256i short_of = _mm256_cmpeq_epi32(_mm256_srli_epi32(*x, 16), _mm256_setzero_si256());
    const unsigned mask = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(short_of));
    const __m256i next = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)words));
    const __m256i order = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)spread.lane[mask]));
    const __m256i word = _mm256_and_si256(_mm256_permutevar8x32_epi32(next, order), short_of);
    *x = _mm256_or_si256(_mm256_sllv_epi32(*x, _mm256_and_si256(short_of, _mm256_set1_epi32(16))), word);
    return words + 2 * (unsigned)__builtin_popcount(mask);
}

/* Four vectors of lanes: their symbols, or pairs, in order. */
LP_ALWAYS_INLINE LP_TARGET_AVX2 __m256i step4(const constants *c, __m256i *x, const uint8_t **words)
{
    const __m256i e0 = step(c, x), e1 = step(c, x + 1), e2 = step(c, x + 2), e3 = step(c, x + 3);
    const uint8_t *at = *words;
    at = take(x, at);
    at = take(x + 1, at);
    at = take(x + 2, at);
    *words = take(x + 3, at);
    const __m256i s01 = _mm256_packus_epi32(_mm256_and_si256(e0, c->low), _mm256_and_si256(e1, c->low));
    const __m256i s23 = _mm256_packus_epi32(_mm256_and_si256(e2, c->low), _mm256_and_si256(e3, c->low));
    return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(s01, s23), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

LP_ALWAYS_INLINE LP_TARGET_AVX2 void store(const constants *c, __m256i s, unsigned pairs, uint8_t *symbols)
{
    if (!pairs) {
        _mm256_storeu_si256((__m256i *)(void *)symbols, _mm256_add_epi8(s, c->first));
        return;
    }
    const __m256i a = _mm256_add_epi8(_mm256_and_si256(_mm256_srli_epi16(s, 4), c->nibble), c->first);
    const __m256i b = _mm256_add_epi8(_mm256_and_si256(s, c->nibble), c->first);
    const __m256i even = _mm256_unpacklo_epi8(a, b), odd = _mm256_unpackhi_epi8(a, b);
    _mm256_storeu_si256((__m256i *)(void *)symbols, _mm256_permute2x128_si256(even, odd, 0x20));
    _mm256_storeu_si256((__m256i *)(void *)(symbols + 32), _mm256_permute2x128_si256(even, odd, 0x31));
}

/* Two groups of four vectors, because one waits for its gathers and products most of the time. */
LP_ALWAYS_INLINE LP_TARGET_AVX2 void run_lanes(lp_rans_run *run, size_t whole, unsigned pairs)
{
    const lp_rans_layout l = run->layout;
    const constants c = {_mm_cvtsi32_si128((int)l.bits), _mm_cvtsi32_si128((int)l.symbol), _mm_cvtsi32_si128((int)(l.symbol + l.field)),
                         _mm256_set1_epi32((int)((1u << l.bits) - 1)), _mm256_set1_epi32((int)((1u << l.field) - 1)), _mm256_set1_epi32((1 << l.symbol) - 1),
                         _mm256_set1_epi8((char)run->first), _mm256_set1_epi8(15), run->slots};
    __m256i x[8];
    for (unsigned v = 0; v < 8; v++) x[v] = _mm256_loadu_si256((const __m256i *)(const void *)(run->states + 8 * v));
    const uint8_t *words = run->words;
    const size_t width = pairs ? 64 : 32;
    uint8_t *symbols = run->symbols + run->done * (width / 32);
    size_t i = run->done;
    for (; i + 64 <= whole && run->end - words >= 128; i += 64, symbols += 2 * width) {
        store(&c, step4(&c, x, &words), pairs, symbols);
        store(&c, step4(&c, x + 4, &words), pairs, symbols + width);
    }
    for (unsigned v = 0; v < 8; v++) _mm256_storeu_si256((__m256i *)(void *)(run->states + 8 * v), x[v]);
    run->words = words;
    run->done = i;
}

LP_TARGET_AVX2 void lp_rans_lanes_avx2(lp_rans_run *run, size_t entries)
{
    /* Of an odd number of symbols the last pair is left to the portable path. */
    if (run->pairs) run_lanes(run, run->count / 2, 1);
    else run_lanes(run, entries, 0);
}
#endif
