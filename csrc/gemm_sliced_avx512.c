#include "gemm_binary_paths.h"

#if LP_X86
#include <immintrin.h>

#define WIDTH 512u
#define TARGET LP_TARGET_AVX512
#define NAME(x) lp_sliced_avx512_##x
typedef __m512i V;

TARGET static inline V v_load(const V *from) { return _mm512_load_si512(from); }
TARGET static inline void v_store(V *to, V x) { _mm512_store_si512(to, x); }
TARGET static inline V v_zero(void) { return _mm512_setzero_si512(); }
TARGET static inline V v_set(uint64_t word) { return _mm512_set1_epi64((long long)word); }
TARGET static inline V v_xor(V a, V b) { return _mm512_xor_si512(a, b); }
TARGET static inline V v_and(V a, V b) { return _mm512_and_si512(a, b); }
TARGET static inline V v_not(V a) { return _mm512_ternarylogic_epi64(a, a, a, 0x0f); }

/* The carry is read off the new sum, so that neither result needs a copy of its operand: a where a = b, else not the sum. */
TARGET LP_ALWAYS_INLINE V v_carry(V *s, V a, V b) {
    *s = _mm512_ternarylogic_epi64(*s, a, b, 0x96);
    return _mm512_ternarylogic_epi64(a, b, *s, 0xd4);
}

TARGET LP_ALWAYS_INLINE void v_swap(V *a, V *b, unsigned n, V mask) {
    const V changed = _mm512_ternarylogic_epi64(_mm512_srli_epi64(*a, n), *b, mask, 0x28); /* (a ^ b) & mask */
    *b = v_xor(*b, changed);
    *a = v_xor(*a, _mm512_slli_epi64(changed, n));
}

TARGET LP_ALWAYS_INLINE void v_spread(uint64_t x, uint64_t y, uint64_t z, uint64_t *out) {
    V all = _mm512_maskz_set1_epi8((__mmask64)x, 8);
    all = _mm512_mask_add_epi8(all, (__mmask64)y, all, _mm512_set1_epi8(16));
    all = _mm512_mask_add_epi8(all, (__mmask64)z, all, _mm512_set1_epi8(32));
    _mm512_storeu_si512(out, all);
}

TARGET LP_ALWAYS_INLINE void v_prefetch(const int32_t *c, size_t n) {
    for (size_t i = 0; i < n; i += 16u) {
        __builtin_prefetch(c + i, 1);
    }
}

TARGET LP_ALWAYS_INLINE void v_emit(const V *low, const V *high, int32_t total, int32_t *c) {
    const V zero = v_zero(), all = _mm512_set1_epi32(total);
    for (unsigned i = 0; i < 8u; ++i, c += 64) {
        const V near = _mm512_unpacklo_epi8(low[i], high[i]), far = _mm512_unpackhi_epi8(low[i], high[i]);
        _mm512_storeu_si512(c, _mm512_sub_epi32(all, _mm512_unpacklo_epi16(near, zero)));
        _mm512_storeu_si512(c + 16, _mm512_sub_epi32(all, _mm512_unpackhi_epi16(near, zero)));
        _mm512_storeu_si512(c + 32, _mm512_sub_epi32(all, _mm512_unpacklo_epi16(far, zero)));
        _mm512_storeu_si512(c + 48, _mm512_sub_epi32(all, _mm512_unpackhi_epi16(far, zero)));
    }
}

#include "gemm_sliced.inc"
#else
typedef int lp_sliced_avx512_is_empty;
#endif
