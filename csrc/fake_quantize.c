#include "fake_quantize.h"

#include <string.h>

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONES
#endif

/* Adding and taking away 1.5 * 2^23 rounds a float below 2^22 in magnitude to the nearest integer, ties to even. */
static const float magic = 12582912.0f;
/* Partial sums, each over every LANES-th value of a block: a fixed order of addition that vector units can follow. */
enum { BLOCK = 1024, LANES = 16 };

static inline double sum(const float *terms, size_t count) {
    float lanes[LANES] = {0.0f};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (size_t k = 0; k < LANES; ++k) {
            lanes[k] += terms[i + k];
        }
    }
    double total = 0.0;
    for (size_t k = 0; k < LANES; ++k) {
        total += (double)lanes[k];
    }
    for (; i < count; ++i) {
        total += (double)terms[i];
    }
    return total;
}

static inline float wide(uint16_t value) {
    const uint32_t bits = (uint32_t)value << 16;
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

static inline uint16_t narrow(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (uint16_t)(value != value ? 0x7fc0u : rounded);
}

static inline float clamp(float v, float low, float high) {
    v = v < low ? low : v;
    return v > high ? high : v;
}

static inline float rounded(float x, float scale, float low, float high) {
    return (clamp(x / scale, low, high) + magic) - magic;
}

CLONES void lp_fake_quantize_f32(const float *restrict x, float *restrict y, size_t count, float scale, float low,
                                 float high) {
    for (size_t i = 0; i < count; ++i) {
        y[i] = rounded(x[i], scale, low, high) * scale;
    }
}

CLONES void lp_fake_quantize_bf16(const uint16_t *restrict x, uint16_t *restrict y, size_t count, float scale,
                                  float low, float high) {
    for (size_t i = 0; i < count; ++i) {
        y[i] = narrow(rounded(wide(x[i]), scale, low, high) * scale);
    }
}

/* The slope by the scale, of v = x / scale and its rounded value, limited to just outside the range. */
static inline float slope(float v, float r, float low, float high) {
    const float inside = r - v;
    const float above = v >= high ? high : inside;
    return v <= low ? low : above;
}

static inline float nearest(float v, float low, float high) {
    return (clamp(v, low - 2.0f, high + 2.0f) + magic) - magic;
}

CLONES double lp_fake_quantize_backward_f32(const float *restrict x, const float *restrict grad,
                                            float *restrict grad_x, size_t count, float scale, float low,
                                            float high) {
    double total = 0.0;
    for (size_t start = 0; start < count; start += BLOCK) {
        const size_t here = count - start < BLOCK ? count - start : BLOCK;
        float terms[BLOCK];
        for (size_t i = 0; i < here; ++i) {
            const float v = x[start + i] / scale, g = grad[start + i];
            const float r = nearest(v, low, high);
            terms[i] = slope(v, r, low, high) * g;
            grad_x[start + i] = (r >= low) & (r <= high) ? g : 0.0f;
        }
        total += sum(terms, here);
    }
    return total;
}

CLONES double lp_fake_quantize_backward_bf16(const uint16_t *restrict x, const uint16_t *restrict grad,
                                             uint16_t *restrict grad_x, size_t count, float scale, float low,
                                             float high) {
    double total = 0.0;
    for (size_t start = 0; start < count; start += BLOCK) {
        const size_t here = count - start < BLOCK ? count - start : BLOCK;
        float terms[BLOCK];
        for (size_t i = 0; i < here; ++i) {
            const float v = wide(x[start + i]) / scale;
            const float r = nearest(v, low, high);
            terms[i] = slope(v, r, low, high) * wide(grad[start + i]);
            grad_x[start + i] = (uint16_t)(grad[start + i] & (uint16_t)-((r >= low) & (r <= high)));
        }
        total += sum(terms, here);
    }
    return total;
}
