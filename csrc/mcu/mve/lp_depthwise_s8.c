/* Depthwise convolution, a filter for every channel: sixteen channels at once, then eight and what is left, one pixel at a time
 * (pixels_at_once = 1). */
#include "lp_mve.h"

enum { TOGETHER = 64 }; /* channels that are summed before they are rescaled, a multiple of 16 */

/* A rectangle of taps, inside the image or outside of it. `skip` leads from behind a row to the next. */
typedef struct {
    const int8_t *x, *w;
    int32_t rows, columns, step_x, skip_x, skip_w;
} part;

/* Eight lanes: widen, multiply, and add the products of even and odd channels to sums of their own. */
#define EIGHT(OFFSET, T, EVEN, ODD)              \
    "vldrb" T ".s16 q0, [%[x], #" OFFSET "]\n\t" \
    "vldrb" T ".s16 q1, [%[w], #" OFFSET "]\n\t" \
    "vmullb.s16 q2, q0, q1\n\t"                  \
    "vmullt.s16 q3, q0, q1\n\t"                  \
    "vadd.i32 " EVEN ", " EVEN ", q2\n\t"        \
    "vadd.i32 " ODD ", " ODD ", q3\n\t"

/* Row after row of a part. */
#define TAPS(BODY)                  \
    "1:\n\t"                        \
    "dls lr, %[columns]\n"          \
    "2:\n\t" BODY                   \
    "add %[x], %[x], %[step_x]\n\t" \
    "add %[w], %[w], %[step_w]\n\t" \
    "le lr, 2b\n\t"                 \
    "add %[x], %[x], %[skip_x]\n\t" \
    "add %[w], %[w], %[skip_w]\n\t" \
    "subs %[rows], %[rows], #1\n\t" \
    "bne 1b"

/* Some in high registers, as without optimization the compiler takes low ones only. */
#define FIELDS                                                                                     \
    [columns] "h"(t->columns), [step_x] "r"(t->step_x), [step_w] "r"(channels), [skip_x] "h"(t->skip_x), \
        [skip_w] "h"(t->skip_w)

/* The sums of sixteen channels from c on over all parts of a window; `border` is what is outside of the image. */
static inline void sixteen(const part *t, int32_t count, int32_t c, int32_t channels, const int8_t *border, int32_t *sums)
{
    register int32x4_t a0 __asm__("q4") = vdupq_n_s32(0), a1 __asm__("q5") = vdupq_n_s32(0);
    register int32x4_t b0 __asm__("q6") = vdupq_n_s32(0), b1 __asm__("q7") = vdupq_n_s32(0);
    for (; count > 0; count--, t++) {
        const int8_t *x = t->step_x ? t->x + c : border, *w = t->w + c;
        int32_t rows = t->rows;
        __asm__(TAPS(EIGHT("0", "", "q4", "q5") EIGHT("8", "", "q6", "q7"))
                : "+w"(a0), "+w"(a1), "+w"(b0), "+w"(b1), [x] "+&r"(x), [w] "+&r"(w), [rows] "+&r"(rows)
                : FIELDS
                : "q0", "q1", "q2", "q3", "lr", "cc", "memory");
    }
    __asm__ volatile("vst20.32 {q4, q5}, [%[to]]\n\t"
                     "vst21.32 {q4, q5}, [%[to]]!\n\t"
                     "vst20.32 {q6, q7}, [%[to]]\n\t"
                     "vst21.32 {q6, q7}, [%[to]]"
                     : [to] "+&r"(sums)
                     : "w"(a0), "w"(a1), "w"(b0), "w"(b1)
                     : "memory");
}

/* The same of eight channels, or of those that are left. */
static inline void eight(const part *t, int32_t count, int32_t c, int32_t channels, const int8_t *border, int32_t *sums)
{
    register int32x4_t even __asm__("q4") = vdupq_n_s32(0), odd __asm__("q5") = vdupq_n_s32(0);
    for (; count > 0; count--, t++) {
        const int8_t *x = t->step_x ? t->x + c : border, *w = t->w + c;
        int32_t rows = t->rows;
        /* The predicate cannot be named as changed; nothing else in this file has one. */
        __asm__("vctp.16 %[left]\n" TAPS("vpstt\n\t" EIGHT("0", "t", "q4", "q5"))
                : "+w"(even), "+w"(odd), [x] "+&r"(x), [w] "+&r"(w), [rows] "+&r"(rows)
                : FIELDS, [left] "r"(channels - c)
                : "q0", "q1", "q2", "q3", "lr", "cc", "memory");
    }
    __asm__ volatile("vst20.32 {q4, q5}, [%[to]]\n\t"
                     "vst21.32 {q4, q5}, [%[to]]"
                     :
                     : [to] "r"(sums), "w"(even), "w"(odd)
                     : "memory");
}

/* A window at (rows, columns) that is not inside the image, in parts. */
static __attribute__((noinline)) int32_t parts_of(const lp_conv *p, const int8_t *in, lp_span rows, lp_span columns, part *t)
{
    const int32_t channels = p->in_c, step = p->dilation_w * channels, line = p->in_w * channels, step_h = p->dilation_h * line;
    const int32_t row = p->kernel_w * channels, inside = rows.last - rows.first, taps = columns.last - columns.first;
    const int32_t below = p->kernel_h - rows.last, after = p->kernel_w - columns.last;
    const int8_t *x = in + rows.start * line + columns.start * channels + rows.first * step_h + columns.first * step;
    const int8_t *w = p->weights + rows.first * row;
    const part parts[5] = {{x, w + columns.first * channels, inside, taps, step, step_h - taps * step, row - taps * channels},
                           {0, p->weights, rows.first, p->kernel_w, 0, 0, 0},
                           {0, p->weights + rows.last * row, below, p->kernel_w, 0, 0, 0},
                           {0, w, inside, columns.first, 0, 0, row - columns.first * channels},
                           {0, w + columns.last * channels, inside, after, 0, 0, row - after * channels}};
    int32_t count = 0;
    for (int i = 0; i < 5; i++)
        if (parts[i].rows > 0 && parts[i].columns > 0) t[count++] = parts[i];
    return count;
}

/* Codes of n channels from c on. */
static __attribute__((noinline)) void finish(const lp_conv *params, const int32_t *sums, int32_t c, int32_t n, int8_t *out)
{
    const lp_conv copy = *params, *p = &copy; /* the stores could change the original */
    int32_t i = 0;
    for (; i < n - 3; i += 4) {
        const int32x4_t total = vaddq_s32(vld1q_s32(sums + i), vld1q_s32(p->bias + c + i));
        lp_finish4(p, total, p->multipliers + c + i, p->shifts + c + i, out + i);
    }
    for (; i < n; i++) out[i] = lp_finish(p, sums[i] + p->bias[c + i], c + i);
}

void lp_depthwise_s8(const lp_conv *p, const int8_t *in, int8_t *out)
{
    const int32_t channels = p->in_c, line = p->in_w * channels, step = p->dilation_w * channels, step_h = p->dilation_h * line;
    const part inner = {in, p->weights, p->kernel_h, p->kernel_w, step, step_h - p->kernel_w * step, 0};
    int8_t border[16];
    int32_t sums[TOGETHER];
    part parts[5];
    vst1q_s8(border, vdupq_n_s8((int8_t)p->in_zero));
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        const lp_span rows = lp_span_of(oy * p->stride_h - p->pad_top, p->kernel_h, p->dilation_h, p->in_h);
        for (int32_t ox = 0; ox < p->out_w; ox++, out += channels) {
            const lp_span columns = lp_span_of(ox * p->stride_w - p->pad_left, p->kernel_w, p->dilation_w, p->in_w);
            int32_t count = 1;
            if (rows.last - rows.first == p->kernel_h && columns.last - columns.first == p->kernel_w) {
                parts[0] = inner;
                parts[0].x += rows.start * line + columns.start * channels;
            } else {
                count = parts_of(p, in, rows, columns, parts);
            }
            for (int32_t first = 0, n; first < channels; first += n) {
                n = channels - first < TOGETHER ? channels - first : TOGETHER;
                int32_t i = 0;
                for (; i + 16 <= n; i += 16) sixteen(parts, count, first + i, channels, border, sums + i);
                for (; i < n; i += 8) eight(parts, count, first + i, channels, border, sums + i);
                finish(p, sums, first, n, out + first);
            }
        }
    }
}
