/* Sums of products of convolutions, four at a time so that what is loaded is used twice. Portable; some processors have others. */
#ifndef LP_DOT_H
#define LP_DOT_H

#include "lp.h"

/* Add the products of two pixels' windows, at a and b, with two filters, the second one `filter` codes behind the first.
 * A window is `rows` runs of n codes, `jump` codes apart; weights lie without gaps. Sums: a and b with the first filter, then the second. */
static inline void lp_dot_2x2(int32_t sums[4], const int8_t *a, const int8_t *b, const int8_t *w, int32_t filter, int32_t n, int32_t rows, int32_t jump)
{
    const int8_t *v = w + filter;
    int32_t aw = sums[0], bw = sums[1], av = sums[2], bv = sums[3];
    do {
        for (int32_t i = 0; i < n; i++) {
            const int32_t x = *a++, y = *b++, f = *w++, g = *v++;
            aw += x * f;
            bw += y * f;
            av += x * g;
            bv += y * g;
        }
        a += jump;
        b += jump;
    } while (--rows);
    sums[0] = aw;
    sums[1] = bw;
    sums[2] = av;
    sums[3] = bv;
}

/* Add the products of a run of n codes with four filters. */
static inline void lp_dot_1x4(int32_t sums[4], const int8_t *a, const int8_t *w, int32_t filter, int32_t n)
{
    const int8_t *v = w + filter, *u = v + filter, *t = u + filter;
    int32_t aw = sums[0], av = sums[1], au = sums[2], at = sums[3];
    for (int32_t i = 0; i < n; i++) {
        const int32_t x = a[i];
        aw += x * w[i];
        av += x * v[i];
        au += x * u[i];
        at += x * t[i];
    }
    sums[0] = aw;
    sums[1] = av;
    sums[2] = au;
    sums[3] = at;
}

/* Taps of a depthwise convolution: `rows` rows of n; taps lie `right` codes apart, a row begins `jump` codes behind where the last one's next tap
 * would be, and weights of a tap lie `channels` codes apart. */
typedef struct {
    int32_t rows, n, right, jump, channels;
} lp_taps;

/* Add the products of all taps of four channels, channel by channel. */
static inline void lp_taps_x4(int32_t sums[4], const lp_taps *t, const int8_t *x, const int8_t *w)
{
    const int32_t right = t->right, jump = t->jump, channels = t->channels;
    int32_t a = sums[0], b = sums[1], c = sums[2], d = sums[3];
    for (int32_t rows = t->rows; rows; rows--, x += jump) {
        for (int32_t n = t->n; n; n--, x += right, w += channels) {
            a += x[0] * w[0];
            b += x[1] * w[1];
            c += x[2] * w[2];
            d += x[3] * w[3];
        }
    }
    sums[0] = a;
    sums[1] = b;
    sums[2] = c;
    sums[3] = d;
}

#endif
