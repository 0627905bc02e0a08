#include "gemm_low_paths.h"

#if LP_X86
#include <immintrin.h>
#include <string.h>

#define ROWS ((size_t)4u)     /* of a, at once */
#define PANELS ((size_t)4u)   /* of w, at once */
#define GROUPS ((size_t)128u) /* of four columns, in a tile: their codes as bytes */

typedef struct {
    const lp_low_product *p;
    size_t column;        /* of c, where the panels begin */
    size_t first, groups; /* of the tile */
    size_t whole;         /* groups of the tile with all four columns */
    __mmask16 there[PANELS];
} piece;

/* sum + the sums of four products each. Nothing saturates: vpdpbusd adds products of 16 bits to 32 bits. In assembly, because
 * GCC 12 moves the accumulators to memory and back around the intrinsic, which doubles the time. */
LP_TARGET_AVX512 LP_ALWAYS_INLINE __m512i dot(__m512i sum, __m512i a, __m512i u, int is_signed) {
    if (is_signed) {
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(a));
    } else {
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(u));
    }
    return sum;
}

LP_TARGET_AVX512 LP_ALWAYS_INLINE __m512i four(const uint8_t *from, size_t bytes) {
    int32_t word = 0;
    memcpy(&word, from, bytes);
    return _mm512_set1_epi32(word);
}

LP_TARGET_AVX512 LP_ALWAYS_INLINE __m512i finished(const lp_low_product *p, __m512i sum, size_t row) {
    const __m512i scaled = _mm512_sll_epi32(sum, _mm_cvtsi32_si128((int)lp_low_shift(p->bits)));
    return _mm512_sub_epi32(scaled, _mm512_set1_epi32(p->sums[row]));
}

LP_TARGET_AVX512 static void decode(const piece *t, size_t panels, __m512i *tile) {
    const lp_low_product *p = t->p;
    const __m512i mask = _mm512_set1_epi8((char)((1u << p->bits) - 1u));
    for (size_t n = 0; n < panels; ++n) {
        const uint8_t *panel = p->panels + (t->column / 16u + n) * p->panel + t->first * p->bits / 8u * 64u;
        for (size_t g = 0; g < t->groups; panel += 64u) {
            const __m512i codes = _mm512_loadu_si512(panel);
            for (unsigned shift = 0; shift < 8u && g < t->groups; shift += p->bits, ++g) {
                tile[g * panels + n] = _mm512_and_si512(_mm512_srl_epi16(codes, _mm_cvtsi32_si128((int)shift)), mask);
            }
        }
    }
}

/* Add up the groups of the tile that are whole: nothing else, so that the sums stay in registers. */
LP_TARGET_AVX512 LP_ALWAYS_INLINE void rows(const piece *t, size_t i, size_t count, size_t panels, int is_signed) {
    const lp_low_product *p = t->p;
    const uint8_t *a = p->a + i * p->k + 4u * t->first;
    const __m512i *tile = p->tile;
    int32_t *c = p->c + i * p->n + t->column;
    __m512i sum[ROWS][PANELS];
    LP_UNROLL
    for (size_t r = 0; r < count; ++r) {
        LP_UNROLL
        for (size_t n = 0; n < panels; ++n) {
            const __mmask16 before = t->first == 0u ? 0u : t->there[n];
            sum[r][n] = _mm512_maskz_loadu_epi32(before, c + r * p->n + 16u * n);
        }
    }
    for (size_t g = 0; g < t->whole; ++g, a += 4, tile += panels) {
        LP_UNROLL
        for (size_t r = 0; r < count; ++r) {
            const __m512i x = four(a + r * p->k, 4u);
            LP_UNROLL
            for (size_t n = 0; n < panels; ++n) {
                sum[r][n] = dot(sum[r][n], x, tile[n], is_signed);
            }
        }
    }
    LP_UNROLL
    for (size_t r = 0; r < count; ++r) {
        LP_UNROLL
        for (size_t n = 0; n < panels; ++n) {
            _mm512_mask_storeu_epi32(c + r * p->n + 16u * n, t->there[n], sum[r][n]);
        }
    }
}

/* The group that is not whole, if there is one, then the offset of the codes. */
LP_TARGET_AVX512 static void finish(const piece *t, size_t i, size_t panels, int is_signed) {
    const lp_low_product *p = t->p;
    const __m512i *tile = (const __m512i *)p->tile + t->whole * panels;
    const __m512i x = four(p->a + i * p->k + p->k / 4u * 4u, p->k % 4u);
    for (size_t n = 0; n < panels; ++n) {
        int32_t *c = p->c + i * p->n + t->column + 16u * n;
        __m512i sum = _mm512_maskz_loadu_epi32(t->there[n], c);
        if (t->whole < t->groups) {
            sum = dot(sum, x, tile[n], is_signed);
        }
        _mm512_mask_storeu_epi32(c, t->there[n], finished(p, sum, i));
    }
}

LP_TARGET_AVX512 LP_ALWAYS_INLINE void all_rows(const piece *t, size_t panels, int is_signed) {
    const int last = 4u * (t->first + t->groups) >= t->p->k;
    for (size_t i = 0; i < t->p->m;) {
        const size_t left = t->p->m - i, count = left >= ROWS ? ROWS : left >= 2u ? 2u : 1u;
        if (count == ROWS) {
            rows(t, i, ROWS, panels, is_signed);
        } else if (count == 2u) {
            rows(t, i, 2u, panels, is_signed);
        } else {
            rows(t, i, 1u, panels, is_signed);
        }
        for (size_t end = i + count; i < end; ++i) {
            if (last) {
                finish(t, i, panels, is_signed);
            }
        }
    }
}

/* One row with codes that go from memory to the product without a tile: for few rows, where memory is what takes the time. */
LP_TARGET_AVX512 LP_ALWAYS_INLINE void stream(const piece *t, size_t i, size_t panels, unsigned bits, int is_signed) {
    const lp_low_product *p = t->p;
    const size_t columns = 32u / bits;
    const __m512i mask = _mm512_set1_epi8((char)((1u << bits) - 1u));
    const uint8_t *panel = p->panels + t->column / 16u * p->panel;
    __m512i sum[PANELS][2];
    LP_UNROLL
    for (size_t n = 0; n < panels; ++n) {
        sum[n][0] = sum[n][1] = _mm512_setzero_si512();
    }
    for (size_t done = 0; done < p->k; done += columns, panel += 64u) {
        const uint8_t *a = p->a + i * p->k + done;
        uint8_t some[32] = {0};
        if (p->k - done < columns) {
            memcpy(some, a, p->k - done);
            a = some;
        }
        LP_UNROLL
        for (size_t n = 0; n < panels; ++n) {
            const __m512i codes = _mm512_loadu_si512(panel + n * p->panel);
            for (unsigned f = 0; f < 8u / bits; ++f) {
                const __m512i u = _mm512_and_si512(_mm512_srli_epi64(codes, f * bits), mask);
                sum[n][f % 2u] = dot(sum[n][f % 2u], four(a + 4u * f, 4u), u, is_signed);
            }
        }
    }
    LP_UNROLL
    for (size_t n = 0; n < panels; ++n) {
        const __m512i all = finished(p, _mm512_add_epi32(sum[n][0], sum[n][1]), i);
        _mm512_mask_storeu_epi32(p->c + i * p->n + t->column + 16u * n, t->there[n], all);
    }
}

LP_TARGET_AVX512 LP_ALWAYS_INLINE void stream_rows(const piece *t, size_t panels, int is_signed) {
    for (size_t i = 0; i < t->p->m; ++i) {
        if (t->p->bits == 4u) {
            stream(t, i, panels, 4u, is_signed);
        } else if (t->p->bits == 2u) {
            stream(t, i, panels, 2u, is_signed);
        } else {
            stream(t, i, panels, 1u, is_signed);
        }
    }
}

#define FEW_ROWS ((size_t)3u)

LP_TARGET_AVX512 LP_ALWAYS_INLINE void panels_at(piece *t, size_t panels, int is_signed) {
    const lp_low_product *p = t->p;
    const size_t groups = (p->k + 3u) / 4u;
    for (size_t n = 0; n < panels; ++n) {
        const size_t begin = t->column + 16u * n, left = p->n - begin;
        t->there[n] = (__mmask16)(left < 16u ? (1u << left) - 1u : 0xffffu);
    }
    if (p->m <= FEW_ROWS) {
        stream_rows(t, panels, is_signed);
        return;
    }
    for (t->first = 0; t->first < groups; t->first += GROUPS) {
        t->groups = groups - t->first < GROUPS ? groups - t->first : GROUPS;
        t->whole = p->k / 4u - t->first < t->groups ? p->k / 4u - t->first : t->groups;
        decode(t, panels, p->tile);
        all_rows(t, panels, is_signed);
    }
}

LP_TARGET_AVX512 LP_ALWAYS_INLINE void product(const lp_low_product *p, int is_signed) {
    piece t = {.p = p};
    for (; p->n > t.column && p->n - t.column > 16u * (PANELS - 1u); t.column += 16u * PANELS) {
        panels_at(&t, PANELS, is_signed);
    }
    for (; t.column < p->n; t.column += 16u) {
        panels_at(&t, 1u, is_signed);
    }
}

LP_TARGET_AVX512 void lp_low_avx512(const lp_low_product *p) {
    if (p->is_signed) {
        product(p, 1);
    } else {
        product(p, 0);
    }
}
#else
typedef int lp_low_avx512_is_empty;
#endif
