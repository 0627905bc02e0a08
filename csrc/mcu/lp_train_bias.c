/* Biases of convolutions: folded for the integer kernels, masked where codes are at their limits, moved against the gradient. */
#include "lp_train.h"

enum { MOST = 1 << 24 }; /* steps that a bias may move */

void lp_train_fold(const lp_back *p, const float *change, int32_t *bias)
{
    for (int32_t o = 0; o < p->out_c; o++) {
        float moved = change[o] * p->units[o];
        moved = moved > (float)MOST ? (float)MOST : moved < -(float)MOST ? -(float)MOST : moved;
        moved = moved < 0.0f ? moved - 0.5f : moved + 0.5f;
        bias[o] = p->bias[o] + (int32_t)moved;
    }
}

void lp_train_mask(const lp_back *p, const int8_t *out, uint8_t *mask)
{
    const int32_t count = p->out_h * p->out_w * p->out_c;
    for (int32_t i = 0; i < count; i++) {
        if (!(i & 7)) mask[i >> 3] = 0;
        if (out[i] > p->low && out[i] < p->high) mask[i >> 3] |= (uint8_t)(1u << (i & 7));
    }
}

void lp_train_apply(const lp_back *p, const uint8_t *mask, float *gradient)
{
    const int32_t count = p->out_h * p->out_w * p->out_c;
    for (int32_t i = 0; i < count; i++)
        if (!((mask[i >> 3] >> (i & 7)) & 1)) gradient[i] = 0.0f;
}

void lp_train_bias(const lp_back *p, const float *gradient, float *change, float rate)
{
    const int32_t pixels = p->out_h * p->out_w;
    for (int32_t o = 0; o < p->out_c; o++) {
        float sum = 0.0f;
        for (int32_t i = 0; i < pixels; i++) sum = sum + gradient[i * p->out_c + o];
        const float step = rate * sum;
        change[o] = change[o] - step;
    }
}
