#include "gemm_binary_paths.h"

#if LP_X86
#include <immintrin.h>

#define WIDTH 256u
#define TARGET LP_TARGET_AVX2
#define NAME(x) lp_sliced_avx2_##x
typedef __m256i V;

TARGET static inline V v_load(const V *from) { return _mm256_load_si256(from); }
TARGET static inline void v_store(V *to, V x) { _mm256_store_si256(to, x); }
TARGET static inline V v_zero(void) { return _mm256_setzero_si256(); }
TARGET static inline V v_set(uint64_t word) { return _mm256_set1_epi64x((long long)word); }
TARGET static inline V v_xor(V a, V b) { return _mm256_xor_si256(a, b); }
TARGET static inline V v_and(V a, V b) { return _mm256_and_si256(a, b); }
TARGET static inline V v_not(V a) { return _mm256_xor_si256(a, _mm256_set1_epi64x(-1)); }

TARGET LP_ALWAYS_INLINE V v_carry(V *s, V a, V b) {
    const V either = v_xor(a, b), carry = _mm256_or_si256(v_and(a, b), v_and(*s, either));
    *s = v_xor(*s, either);
    return carry;
}

TARGET LP_ALWAYS_INLINE void v_swap(V *a, V *b, unsigned n, V mask) {
    const V changed = v_and(v_xor(_mm256_srli_epi64(*a, (int)n), *b), mask);
    *b = v_xor(*b, changed);
    *a = v_xor(*a, _mm256_slli_epi64(changed, (int)n));
}

/* `value` in byte i where bit i is set. */
TARGET LP_ALWAYS_INLINE V bytes_of(uint32_t bits, char value) {
    const V source = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const V each = _mm256_set1_epi64x((long long)UINT64_C(0x8040201008040201));
    const V chosen = v_and(_mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), source), each);
    return v_and(_mm256_cmpeq_epi8(chosen, each), _mm256_set1_epi8(value));
}

TARGET LP_ALWAYS_INLINE void v_spread(uint64_t x, uint64_t y, uint64_t z, uint64_t *out) {
    for (unsigned i = 0; i < 2u; ++i) {
        const uint32_t part[3] = {(uint32_t)(x >> (32u * i)), (uint32_t)(y >> (32u * i)), (uint32_t)(z >> (32u * i))};
        const V all = _mm256_or_si256(_mm256_or_si256(bytes_of(part[0], 8), bytes_of(part[1], 16)), bytes_of(part[2], 32));
        _mm256_storeu_si256((V *)(void *)(out + 4u * i), all);
    }
}

TARGET LP_ALWAYS_INLINE void v_prefetch(const int32_t *c, size_t n) {
    for (size_t i = 0; i < n; i += 16u) {
        __builtin_prefetch(c + i, 1);
    }
}

TARGET LP_ALWAYS_INLINE void v_emit(const V *low, const V *high, int32_t total, int32_t *c) {
    const V zero = v_zero(), all = _mm256_set1_epi32(total);
    for (unsigned i = 0; i < 8u; ++i, c += 32) {
        const V near = _mm256_unpacklo_epi8(low[i], high[i]), far = _mm256_unpackhi_epi8(low[i], high[i]);
        _mm256_storeu_si256((V *)(void *)c, _mm256_sub_epi32(all, _mm256_unpacklo_epi16(near, zero)));
        _mm256_storeu_si256((V *)(void *)(c + 8), _mm256_sub_epi32(all, _mm256_unpackhi_epi16(near, zero)));
        _mm256_storeu_si256((V *)(void *)(c + 16), _mm256_sub_epi32(all, _mm256_unpacklo_epi16(far, zero)));
        _mm256_storeu_si256((V *)(void *)(c + 24), _mm256_sub_epi32(all, _mm256_unpackhi_epi16(far, zero)));
    }
}

#include "gemm_sliced.inc"
#else
typedef int lp_sliced_avx2_is_empty;
#endif
