/* Convolution, grouped and dilated too: two pixels with two filters at once.
 *
 * Windows inside the image are read where they are. Others are gathered first; those that are too large for that are taken tap by tap.
 * Of two pixels nothing that their windows or later ones cover may be overwritten until both are complete (pixels_at_once = 2). */
#include "lp_dot.h"
#include "lp_finish.h"
#include "lp_gather.h"

enum { PATCH = LP_GATHERED / 2 };

typedef struct {
    const int8_t *a, *b; /* none: tap by tap */
    int32_t n, rows, jump;
} windows;

static void tap_by_tap(const lp_conv *p, const int8_t *in, const lp_corner at[2], const int8_t *outside, int32_t sums[4], const int8_t *w, int32_t filter)
{
    const int32_t depth = p->in_c / p->groups;
    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        for (int32_t kx = 0; kx < p->kernel_w; kx++, w += depth) {
            const int8_t *a = lp_tap(p, in, at[0], ky, kx), *b = lp_tap(p, in, at[1], ky, kx);
            for (int32_t c = 0; c < depth; c += PATCH)
                lp_dot_2x2(sums, a ? a + c : outside, b ? b + c : outside, w + c, filter, depth - c < PATCH ? depth - c : PATCH, 1, 0);
        }
    }
}

void lp_conv_s8(const lp_conv *p, const int8_t *in, int8_t *out)
{
    int8_t patch[2][PATCH];
    const int32_t depth = p->in_c / p->groups, filters = p->out_c / p->groups, taps = p->kernel_h * p->kernel_w * depth, next = filters > 1;
    const int32_t row = p->in_w * p->in_c, run = p->kernel_w * depth;
    const int small = taps <= PATCH, plain = p->groups == 1 && p->dilation_w == 1;
    lp_corner at[2] = {{-p->pad_top, -p->pad_left}, {0, 0}};
    memset(patch[0], (uint8_t)p->in_zero, PATCH);
    for (int32_t pixels = p->out_h * p->out_w; pixels > 0; pixels -= 2) {
        int8_t *to_a = out, *to_b = pixels > 1 ? out + p->out_stride : out;
        at[1] = pixels > 1 ? lp_following(p, at[0]) : at[0];
        const int direct = plain && lp_whole(p, at[0], p->kernel_w) && lp_whole(p, at[1], p->kernel_w);
        for (int32_t group = 0; group < p->groups; group++) {
            const int8_t *channels = in + group * depth;
            windows v = {0, 0, taps, 1, 0};
            if (direct) {
                v.n = run;
                v.rows = p->kernel_h;
                v.jump = p->dilation_h * row - run;
                v.a = in + at[0].y * row + at[0].x * p->in_c;
                v.b = in + at[1].y * row + at[1].x * p->in_c;
            } else if (small) {
                v.a = patch[0];
                v.b = patch[1];
                for (int k = 0; k < 2; k++) lp_gather(p, channels, at[k], p->kernel_w, depth, patch[k]);
            }
            for (int32_t o = group * filters, left = filters - 1 - next;;) {
                const int8_t *w = p->weights + o * taps;
                int32_t sums[4] = {p->bias[o], p->bias[o], p->bias[o + next], p->bias[o + next]};
                if (v.a)
                    lp_dot_2x2(sums, v.a, v.b, w, next * taps, v.n, v.rows, v.jump);
                else
                    tap_by_tap(p, channels, at, patch[0], sums, w, next * taps);
                lp_finish_2x2(p, sums, o, next, to_a, to_b);
                if (!left) break;
                /* Of an odd number of filters the last but one comes twice. */
                o += left < 2 ? left : 2;
                left -= left < 2 ? left : 2;
            }
        }
        lp_limit(p, to_a, p->out_c);
        lp_limit(p, to_b, p->out_c);
        out += 2 * p->out_stride;
        at[0] = lp_following(p, at[1]);
    }
}
