/* Simulated quantization of a whole tensor, forward and backward, in one pass over memory.
 *
 * Forward: y = (clamp(rint(x / scale), low, high)) * scale in float32, ties to even, with low = qmin - zero point and
 * high = qmax - zero point. NaN stays NaN. Backward, with v = x / scale and r = rint(v):
 *   grad_x = grad where low <= r <= high, else 0
 *   the returned sum, of grad * (r - v) inside, grad * low where v <= low, grad * high where v >= high
 * bfloat16 values are widened, and rounded to nearest even when stored. Pointers must not be NULL when count is not
 * zero; low and high are at most 2^20 in magnitude, scale is not zero. Nothing is allocated.
 */
#ifndef LILLIPUT_FAKE_QUANTIZE_H
#define LILLIPUT_FAKE_QUANTIZE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void lp_fake_quantize_f32(const float *x, float *y, size_t count, float scale, float low, float high);
void lp_fake_quantize_bf16(const uint16_t *x, uint16_t *y, size_t count, float scale, float low, float high);
double lp_fake_quantize_backward_f32(const float *x, const float *grad, float *grad_x, size_t count, float scale,
                                     float low, float high);
double lp_fake_quantize_backward_bf16(const uint16_t *x, const uint16_t *grad, uint16_t *grad_x, size_t count,
                                      float scale, float low, float high);

#ifdef __cplusplus
}
#endif

#endif
