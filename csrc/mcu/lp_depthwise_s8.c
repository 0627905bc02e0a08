/* Depthwise convolution: a filter for every channel; four channels and one pixel at once.
 *
 * Windows inside the image are read where they are, others are gathered first. */
#include "lp_dot.h"
#include "lp_finish.h"
#include "lp_gather.h"

/* Channels from `first` to before `end`, a multiple of four; x is where the first tap of channel `first` is. */
static void fours(const lp_conv *p, const lp_taps *taps, const int8_t *x, int32_t first, int32_t end, int8_t *out)
{
    const int32_t *bias = p->bias;
    const int8_t *w = p->weights;
    for (int32_t c = first; c < end; c += 4, x += 4) {
        int32_t sums[4] = {bias[c], bias[c + 1], bias[c + 2], bias[c + 3]};
        lp_taps_x4(sums, taps, x, w + c);
        lp_finish_1x4(p, sums, c, out);
    }
}

static int32_t one(const lp_conv *p, const int8_t *in, lp_corner at, int32_t c)
{
    int32_t sum = p->bias[c];
    const int8_t *w = p->weights + c;
    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        for (int32_t kx = 0; kx < p->kernel_w; kx++, w += p->in_c) {
            const int8_t *x = lp_tap(p, in + c, at, ky, kx);
            sum += (x ? *x : p->in_zero) * *w;
        }
    }
    return lp_code(sum, p->multipliers[c], p->shifts[c], p->out_zero);
}

void lp_depthwise_s8(const lp_conv *p, const int8_t *in, int8_t *out)
{
    int8_t patch[LP_GATHERED];
    const int32_t channels = p->in_c, row = p->in_w * channels, size = p->kernel_h * p->kernel_w, right = p->dilation_w * channels;
    const lp_taps direct = {p->kernel_h, p->kernel_w, right, p->dilation_h * row - p->kernel_w * right, channels};
    lp_corner at = {-p->pad_top, -p->pad_left};
    for (int32_t pixels = p->out_h * p->out_w; pixels > 0; pixels--, out += channels, at = lp_following(p, at)) {
        int32_t c = 0;
        if (lp_whole(p, at, p->kernel_w)) {
            c = channels & ~3;
            fours(p, &direct, in + at.y * row + at.x * channels, 0, c, out);
        }
        /* So many channels as fit the patch, at a time. */
        for (int32_t n = 4; c + 4 <= channels && 4 * size <= LP_GATHERED; c += n) {
            while ((n + 4) * size <= LP_GATHERED && c + n + 4 <= channels) n += 4;
            while (c + n > channels) n -= 4;
            const lp_taps gathered = {1, size, n, 0, channels};
            lp_gather(p, in + c, at, p->kernel_w, n, patch);
            fours(p, &gathered, patch, c, c + n, out);
        }
        for (; c < channels; c++) out[c] = (int8_t)one(p, in, at, c);
        lp_limit(p, out, channels);
    }
}
