/* Depthwise convolution for the DSP extension: four channels at once; two pixels beside each other too, where the window has three columns and a
 * stride of one (pixels_at_once = 2). Windows inside the image are read where they are, others are gathered first. */
#ifndef __ARM_FEATURE_DSP
#error "this kernel needs the DSP extension (Cortex-M4, M7, M33): compile with its -mcpu, or generate the project for another target"
#endif

#include "lp_finish.h"
#include "lp_gather.h"

/* A window in memory: its rows lie `below` codes apart, its columns `right`. */
typedef struct {
    const int8_t *x;
    int32_t columns, right, below;
} window;

/* A column of two channels, bytes 0 and 2 or, rotated, 1 and 3 of four. */
#define LOAD(TO, FROM, ROTATED) "ldr " TO ", [" FROM "]\n\tsxtb16 " TO ", " TO ROTATED "\n\t"
#define ADD(LOW, HIGH, X, W) "smlabb " LOW ", " X ", " W ", " LOW "\n\tsmlatt " HIGH ", " X ", " W ", " HIGH "\n\t"

/* Add the products of two channels of two pixels: rows of three weights and four columns. */
#define TWO_PIXELS(low_a, low_b, high_a, high_b, ROTATED) \
    do { \
        const int8_t *x = image + c, *w = weights + c; \
        int32_t rows = kernel_h, column, f, g; \
        __asm__ volatile("1:\n\t" LOAD("%7", "%4", ROTATED) LOAD("%8", "%5", ROTATED) ADD("%0", "%2", "%7", "%8") \
                         LOAD("%7", "%4, %10", ROTATED) ADD("%1", "%3", "%7", "%8") \
                         LOAD("%9", "%5, %11", ROTATED) ADD("%0", "%2", "%7", "%9") \
                         LOAD("%7", "%4, %10, lsl #1", ROTATED) ADD("%1", "%3", "%7", "%9") \
                         LOAD("%8", "%5, %11, lsl #1", ROTATED) ADD("%0", "%2", "%7", "%8") \
                         "add %5, %5, %11\n\tadd %4, %4, %10\n\tadd %5, %5, %11, lsl #1\n\t" \
                         LOAD("%7", "%4, %10, lsl #1", ROTATED) ADD("%1", "%3", "%7", "%8") \
                         "subs %6, %6, #1\n\tadd %4, %4, %12\n\tbne 1b" \
                         : "+r"(low_a), "+r"(low_b), "+r"(high_a), "+r"(high_b), "+r"(x), "+r"(w), "+r"(rows), "=&r"(column), "=&r"(f), "=&r"(g) \
                         : "r"(right), "r"(channels), "r"(below) : "cc", "memory"); \
    } while (0)

/* Channels from `first` on of two pixels, as many as there are codes in a row of the window at v. */
static void two_pixels(const lp_conv *p, const window *v, int32_t first, int32_t count, int8_t *out)
{
    const int32_t channels = p->in_c, right = v->right, below = v->below - right, kernel_h = p->kernel_h, *bias = p->bias;
    const int8_t *image = v->x - first, *weights = p->weights;
    for (int32_t c = first; c < first + count; c += 4) {
        int32_t a[4] = {bias[c], bias[c + 1], bias[c + 2], bias[c + 3]}, b[4] = {a[0], a[1], a[2], a[3]};
        TWO_PIXELS(a[0], b[0], a[2], b[2], "");
        TWO_PIXELS(a[1], b[1], a[3], b[3], ", ror #8");
        lp_finish_2x4(p, a, b, c, out, out + channels);
    }
}

static void one_pixel(const lp_conv *p, const window *v, int32_t first, int32_t count, int8_t *out)
{
    const int32_t channels = p->in_c, right = v->right;
    for (int32_t c = 0; c < count; c += 4) {
        const int8_t *x = v->x + c, *w = p->weights + first + c;
        const int32_t *bias = p->bias + first + c;
        int32_t a[4] = {bias[0], bias[1], bias[2], bias[3]};
        for (int32_t ky = p->kernel_h; ky; ky--, x += v->below - v->columns * right) {
            for (int32_t kx = v->columns; kx; kx--, x += right, w += channels) {
                int32_t even, odd, f, g;
                __asm__ volatile("ldr %5, [%8]\n\tldr %7, [%9]\n\tsxtb16 %4, %5\n\tsxtb16 %5, %5, ror #8\n\tsxtb16 %6, %7\n\tsxtb16 %7, %7, ror #8\n\t"
                                 ADD("%0", "%2", "%4", "%6") ADD("%1", "%3", "%5", "%7")
                                 : "+r"(a[0]), "+r"(a[1]), "+r"(a[2]), "+r"(a[3]), "=&r"(even), "=&r"(odd), "=&r"(f), "=&r"(g)
                                 : "r"(x), "r"(w) : "memory");
            }
        }
        lp_finish_1x4(p, a, first + c, out);
    }
}

static int32_t one_channel(const lp_conv *p, const int8_t *in, lp_corner at, int32_t c)
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

/* All channels of a pixel, or of a pair. */
static void pixels(const lp_conv *p, const int8_t *in, lp_corner at, int32_t pair, int8_t *out)
{
    int8_t patch[LP_GATHERED];
    const int32_t channels = p->in_c, columns = p->kernel_w + pair, size = p->kernel_h * columns;
    int32_t n = channels & ~3, c = 0;
    window v = {patch, columns, p->dilation_w * channels, p->dilation_h * p->in_w * channels};
    const int direct = lp_whole(p, at, columns);
    if (direct)
        v.x = in + (at.y * p->in_w + at.x) * channels;
    else
        while (n * size > LP_GATHERED) n -= 4; /* as many channels at a time as fit the patch */
    for (; n && c + 4 <= channels; c += n) {
        if (c + n > channels) n = (channels - c) & ~3;
        if (!direct) {
            lp_gather(p, in + c, at, columns, n, patch);
            v.right = n;
            v.below = n * columns;
        }
        (pair ? two_pixels : one_pixel)(p, &v, c, n, out);
    }
    for (; c < channels; c++) {
        const lp_corner next = {at.y, at.x + 1};
        out[c] = (int8_t)one_channel(p, in, at, c);
        if (pair) out[channels + c] = (int8_t)one_channel(p, in, next, c);
    }
    lp_limit(p, out, (1 + pair) * channels);
}

void lp_depthwise_s8(const lp_conv *p, const int8_t *in, int8_t *out)
{
    const int pairs = p->kernel_w == 3 && p->stride_w == 1 && p->dilation_w == 1;
    lp_corner at = {-p->pad_top, -p->pad_left};
    for (int32_t left = p->out_h * p->out_w; left > 0;) {
        lp_corner next = lp_following(p, at);
        const int pair = pairs && next.y == at.y && next.x > at.x;
        pixels(p, in, at, pair, out);
        at = pair ? lp_following(p, next) : next;
        out += (1 + pair) * p->in_c;
        left -= 1 + pair;
    }
}
