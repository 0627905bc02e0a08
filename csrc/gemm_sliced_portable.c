#include "gemm_binary_paths.h"

#define WIDTH 64u
#define TARGET
#define NAME(x) lp_sliced_portable_##x
typedef uint64_t V;

static inline V v_load(const V *from) { return *from; }
static inline void v_store(V *to, V x) { *to = x; }
static inline V v_zero(void) { return 0u; }
static inline V v_set(uint64_t word) { return word; }
static inline V v_xor(V a, V b) { return a ^ b; }
static inline V v_and(V a, V b) { return a & b; }
static inline V v_not(V a) { return ~a; }

static inline V v_carry(V *s, V a, V b) {
    const V either = a ^ b, carry = (a & b) | (*s & either);
    *s ^= either;
    return carry;
}

static inline void v_swap(V *a, V *b, unsigned n, V mask) {
    const V changed = ((*a >> n) ^ *b) & mask;
    *b ^= changed;
    *a ^= changed << n;
}

/* Byte i is 1 where bit i of the byte `bits` is set. */
static inline uint64_t bytes_of(uint64_t bits) {
    const uint64_t chosen = ((bits & 0xffu) * UINT64_C(0x0101010101010101)) & UINT64_C(0x8040201008040201);
    return ((chosen + UINT64_C(0x7f7f7f7f7f7f7f7f)) & UINT64_C(0x8080808080808080)) >> 7;
}

static inline void v_spread(uint64_t x, uint64_t y, uint64_t z, uint64_t *out) {
    for (unsigned i = 0; i < 8u; ++i) {
        out[i] = bytes_of(x >> (8u * i)) << 3 | bytes_of(y >> (8u * i)) << 4 | bytes_of(z >> (8u * i)) << 5;
    }
}

static inline void v_prefetch(const int32_t *c, size_t n) {
    (void)c;
    (void)n;
}

static inline void v_emit(const V *low, const V *high, int32_t total, int32_t *c) {
    for (unsigned i = 0; i < 8u; ++i) {
        for (unsigned byte = 0; byte < 8u; ++byte) {
            const uint32_t twice = (uint8_t)(low[i] >> (8u * byte)) | (uint32_t)(uint8_t)(high[i] >> (8u * byte)) << 8;
            c[8u * i + byte] = total - (int32_t)twice;
        }
    }
}

#include "gemm_sliced.inc"
