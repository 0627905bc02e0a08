/* Products of two activations with strides for all axes of both; the result is (row, batch, column). */
#include "lp.h"

static int32_t dot(const lp_matmul *p, const int8_t *row, const int8_t *column)
{
    const int32_t step_a = p->stride_a[2], step_b = p->stride_b[1], zero_a = p->zero_a, zero_b = p->zero_b;
    int32_t sum = 0;
    for (int32_t k = p->inner; k; k--, row += step_a, column += step_b) sum += (*row - zero_a) * (*column - zero_b);
    return sum;
}

void lp_matmul_s8(const lp_matmul *p, const int8_t *a, const int8_t *b, int8_t *out)
{
    for (int32_t i = 0; i < p->rows; i++) {
        for (int32_t n = 0; n < p->batch; n++) {
            const int8_t *row = a + p->offset_a + n * p->stride_a[0] + i * p->stride_a[1];
            for (int32_t j = 0; j < p->columns; j++) {
                const int32_t sum = dot(p, row, b + p->offset_b + n * p->stride_b[0] + j * p->stride_b[2]);
                *out++ = (int8_t)lp_clamp(lp_rescale(sum, p->multiplier, p->shift) + p->out_zero, p->low, p->high);
            }
        }
    }
}
