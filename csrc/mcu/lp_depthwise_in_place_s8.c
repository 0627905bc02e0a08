/* Depthwise convolution of stride 1 and equal size over its own input, channel after channel. The rows that are overwritten while
 * later ones still read them are kept in scratch, pad_top + 1 rows of in_w bytes. */
#include "lp.h"

void lp_depthwise_in_place_s8(const lp_conv *p, int8_t *buffer, int8_t *scratch)
{
    const int32_t channels = p->in_c, width = p->in_w, kept = p->pad_top + 1;
    for (int32_t c = 0; c < channels; c++) {
        int8_t *plane = buffer + c;
        for (int32_t oy = 0; oy < p->out_h; oy++) {
            int8_t *row = scratch + oy % kept * width;
            for (int32_t x = 0; x < width; x++) row[x] = plane[(oy * width + x) * channels];
            for (int32_t ox = 0; ox < p->out_w; ox++) {
                const int32_t top = oy - p->pad_top, left = ox - p->pad_left;
                const int8_t *w = p->weights + c;
                int32_t sum = p->bias[c];
                for (int32_t ky = 0; ky < p->kernel_h; ky++) {
                    const int32_t y = top + ky * p->dilation_h;
                    const int8_t *from = y < 0 || y >= p->in_h ? 0 : y > oy ? plane + y * width * channels : scratch + y % kept * width;
                    const int32_t step = y > oy ? channels : 1;
                    for (int32_t kx = 0; kx < p->kernel_w; kx++, w += channels) {
                        const int32_t x = left + kx * p->dilation_w;
                        sum += (from && x >= 0 && x < width ? from[x * step] : p->in_zero) * *w;
                    }
                }
                plane[(oy * width + ox) * channels] = lp_finish(p, sum, c);
            }
        }
    }
}
