/* The gradient of an average pool's input: every element of a window has the same share. */
#include "lp_train.h"

void lp_train_mean(const lp_back *p, const float *gradient, float *back)
{
    const int32_t elements = p->in_h * p->in_w * p->in_c;
    for (int32_t i = 0; i < elements; i++) back[i] = 0.0f;
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        for (int32_t ox = 0; ox < p->out_w; ox++, gradient += p->in_c) {
            int32_t top = oy * p->stride_h - p->pad_top, left = ox * p->stride_w - p->pad_left;
            const int32_t bottom = top + p->kernel_h < p->in_h ? top + p->kernel_h : p->in_h;
            const int32_t right = left + p->kernel_w < p->in_w ? left + p->kernel_w : p->in_w;
            top = top < 0 ? 0 : top;
            left = left < 0 ? 0 : left;
            const float count = (float)(p->whole ? p->kernel_h * p->kernel_w : (bottom - top) * (right - left));
            for (int32_t c = 0; c < p->in_c; c++) {
                const float share = gradient[c] / count;
                for (int32_t y = top; y < bottom; y++) {
                    for (int32_t x = left; x < right; x++) {
                        float *to = back + (y * p->in_w + x) * p->in_c + c;
                        *to = *to + share;
                    }
                }
            }
        }
    }
}
