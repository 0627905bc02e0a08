/* The gradient of a convolution's input, pixel after pixel and filter after filter. */
#include "lp_train.h"

/* One filter at one pixel; `first` is its group's first input channel. */
static void spread(const lp_back *p, int32_t y, int32_t x, const int8_t *w, float value, float *first)
{
    const int32_t depth = p->in_c / p->groups;
    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        const int32_t iy = y + ky * p->dilation_h;
        for (int32_t kx = 0; kx < p->kernel_w; kx++, w += p->tap) {
            const int32_t ix = x + kx * p->dilation_w;
            if (iy < 0 || iy >= p->in_h || ix < 0 || ix >= p->in_w) continue;
            float *to = first + (iy * p->in_w + ix) * p->in_c;
            for (int32_t c = 0; c < depth; c++) {
                const float product = value * (float)w[c];
                to[c] = to[c] + product;
            }
        }
    }
}

void lp_train_conv(const lp_back *p, const float *gradient, float *back)
{
    const int32_t depth = p->in_c / p->groups, filters = p->out_c / p->groups, count = p->in_h * p->in_w * p->in_c;
    for (int32_t i = 0; i < count; i++) back[i] = 0.0f;
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        for (int32_t ox = 0; ox < p->out_w; ox++) {
            for (int32_t o = 0; o < p->out_c; o++) {
                const float value = *gradient++ * p->scales[o];
                if (value != 0.0f)
                    spread(p, oy * p->stride_h - p->pad_top, ox * p->stride_w - p->pad_left, p->weights + o * p->filter, value,
                           back + o / filters * depth);
            }
        }
    }
}
