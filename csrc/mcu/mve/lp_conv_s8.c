/* Convolution, grouped and dilated too, four filters at once and one pixel at a time (pixels_at_once = 1). A window is gathered first,
 * so that every filter is one sum over contiguous bytes; windows that are too large for that are read where they are. */
#include "lp_mve.h"

enum { GATHERED = 576 }; /* bytes of a window on the stack: 3 x 3 x 64 */

static inline int8_t *fill(int8_t *to, int32_t value, int32_t n)
{
    int8_t *const end = to + n;
    const int8x16_t values = vdupq_n_s8((int8_t)value);
    __asm__ volatile("wlstp.8 lr, %[n], 2f\n"
                     "1:\n\t"
                     "vstrb.8 %q[values], [%[to]], #16\n\t"
                     "letp lr, 1b\n"
                     "2:"
                     : [to] "+&r"(to)
                     : [n] "r"(n), [values] "w"(values)
                     : "lr", "memory");
    return end;
}

/* The window at (rows, columns) of the first `depth` channels of an image, in the order of the weights, in_zero outside. */
static inline void gather(const lp_conv *p, const int8_t *image, int32_t depth, lp_span rows, lp_span columns, int8_t *to)
{
    const int32_t step = p->dilation_w * p->in_c, row = p->in_w * p->in_c, step_h = p->dilation_h * row;
    const int32_t run = p->kernel_w * depth;
    const int32_t before = columns.first * depth, taps = columns.last - columns.first, inside = rows.last - rows.first;
    const int8_t *from = image + rows.start * row + columns.start * p->in_c + rows.first * step_h + columns.first * step;
    if (rows.first) to = fill(to, p->in_zero, rows.first * run);
    if (taps == p->kernel_w && step == depth) {
        to = lp_append(to, from, run, step_h, inside);
    } else {
        for (int32_t i = 0; i < inside; i++, from += step_h) {
            to = fill(to, p->in_zero, before);
            to = lp_append(to, from, depth, step, taps);
            to = fill(to, p->in_zero, run - before - taps * depth);
        }
    }
    if (rows.last < p->kernel_h) fill(to, p->in_zero, (p->kernel_h - rows.last) * run);
}

/* As lp_dense, without gathering: run after run of bytes, `zeros` in place of those outside of the image. */
static __attribute__((noinline)) void read_in_place(const lp_conv *p, const int8_t *in, lp_span rows, lp_span columns,
                                                    int8_t *zeros, int8_t *out)
{
    const int32_t filters = p->out_c / p->groups, depth = p->in_c / p->groups, few = filters < 4;
    const int32_t row = p->kernel_w * depth, size = p->kernel_h * row, step = p->dilation_w * p->in_c;
    const int whole = step == depth && columns.last - columns.first == p->kernel_w;
    fill(zeros, p->in_zero, GATHERED);
    for (int32_t o = 0; o < p->out_c; o += few ? 1 : 4) {
        /* The last four of a group may overlap those before. */
        if (!few && o % filters > filters - 4) o -= o % filters - (filters - 4);
        const int8_t *image = in + o / filters * depth, *w = p->weights + o * size;
        int32_t sums[4] = {p->bias[o]};
        if (!few) vst1q_s32(sums, vld1q_s32(p->bias + o));
        for (int32_t ky = 0, y = rows.start; ky < p->kernel_h; ky++, y += p->dilation_h) {
            const int8_t *tap = image + (y * p->in_w + columns.start) * p->in_c;
            for (int32_t kx = 0, n; kx < p->kernel_w; kx += n, tap += step) {
                const int inside = ky >= rows.first && ky < rows.last && kx >= columns.first && kx < columns.last;
                n = whole && inside ? p->kernel_w : 1;
                for (int32_t rest = n * depth, part; rest > 0; rest -= part, w += part) {
                    part = inside || rest < GATHERED ? rest : GATHERED;
                    vst1q_s32(sums, lp_dot4(sums, inside ? tap : zeros, w, few ? 0 : size, part));
                }
            }
        }
        if (few)
            out[o] = lp_finish(p, sums[0], o);
        else
            lp_finish4(p, vld1q_s32(sums), p->multipliers + o, p->shifts + o, out + o);
    }
}

void lp_conv_s8(const lp_conv *p, const int8_t *in, int8_t *out)
{
    const int32_t filters = p->out_c / p->groups, depth = p->in_c / p->groups, size = p->kernel_h * p->kernel_w * depth;
    int8_t window[GATHERED];
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        const lp_span rows = lp_span_of(oy * p->stride_h - p->pad_top, p->kernel_h, p->dilation_h, p->in_h);
        for (int32_t ox = 0; ox < p->out_w; ox++, out += p->out_stride) {
            const lp_span columns = lp_span_of(ox * p->stride_w - p->pad_left, p->kernel_w, p->dilation_w, p->in_w);
            if (size > GATHERED) {
                read_in_place(p, in, rows, columns, window, out);
                continue;
            }
            for (int32_t g = 0; g < p->groups; g++) {
                gather(p, in + g * depth, depth, rows, columns, window);
                lp_dense(p, window, size, g * filters, filters, out + g * filters);
            }
        }
    }
}
