/* A convolution over sub-byte codes, block by block: what some pixels of a row need is unpacked, computed as int8 by any kernel for that, and packed.
 *
 * CMix-NN unpacks the windows of two pixels at a time (Capotondi 2020); a block unpacks what neighbouring windows share once. */
#include "lp.h"

/* Codes from `low` on of `length` ones behind each other in an image of `size`. */
typedef struct {
    int32_t low, high;
} span;

static span inside(int32_t low, int32_t length, int32_t size)
{
    span s = {low < 0 ? 0 : low, low + length < size ? low + length : size};
    if (s.high < s.low) s.high = s.low;
    return s;
}

void lp_conv_blocks(const lp_blocks *b, const lp_conv *p, lp_conv_kernel *kernel, int32_t first, const int8_t *in, int8_t *out, int8_t *scratch)
{
    const int32_t depth = p->in_c, channels = p->out_stride, filters = p->out_c, height = (p->kernel_h - 1) * p->dilation_h + 1;
    int8_t *block = scratch + b->behind;
    lp_conv part = *p;
    part.out_h = 1;
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        const int32_t y = oy * p->stride_h - p->pad_top;
        const span rows = inside(y, height, p->in_h);
        part.in_h = (int16_t)(rows.high - rows.low);
        part.pad_top = (int16_t)(rows.low - y);
        for (int32_t ox = 0; ox < p->out_w; ox += b->columns) {
            const int32_t left = p->out_w - ox, n = left < b->columns ? left : b->columns, pixel = oy * p->out_w + ox;
            const int32_t x = ox * p->stride_w - p->pad_left;
            const span columns = inside(x, (n - 1) * p->stride_w + (p->kernel_w - 1) * p->dilation_w + 1, p->in_w);
            const int32_t run = (columns.high - columns.low) * depth;
            int8_t *to = scratch;
            for (int32_t row = rows.low; row < rows.high; row++, to += run) lp_unpack(b->in, in, (row * p->in_w + columns.low) * depth, run, to);
            part.in_w = (int16_t)(columns.high - columns.low);
            part.pad_left = (int16_t)(columns.low - x);
            part.out_w = (int16_t)n;
            if (b->out.bits == 8) {
                kernel(&part, scratch, out + pixel * channels + first);
                continue;
            }
            part.out_stride = p->out_c;
            kernel(&part, scratch, block);
            if (filters == channels)
                lp_pack(b->out, block, n * channels, out, pixel * channels);
            else
                for (int32_t i = 0; i < n; i++) lp_pack(b->out, block + i * filters, filters, out, (pixel + i) * channels + first);
        }
    }
}
