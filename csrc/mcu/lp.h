/* Integer kernels of generated projects: C99, no heap, no float, no global state.
 *
 * Tensors are int8 with channels last; a code q stands for (q - zero) * scale. Rescaling by M = m 2^(shift - 31) is that of
 * TensorFlow Lite Micro: a doubling high multiply with ties up, then a division by a power of two with ties away from zero;
 * with LP_SINGLE_ROUNDING one rounding, ties up. Every kernel gives the same codes on every target.
 *
 * Memory. Input and output may share bytes where the planner allows it, so every kernel, in every variant, keeps this order:
 * - lp_conv, lp_pointwise, lp_depthwise and the pools write pixel after pixel, rows from the top, columns from the left. Before the
 *   last read for pixel p, nothing behind pixel p of the output is written; a variant that computes n pixels (of consecutive
 *   numbers) at once, nothing behind pixel p + n - 1: the planner is then called with pixels_at_once = n.
 * - lp_add, lp_multiply, lp_table, lp_softmax and lp_normalise write element after element; before element i of an input of the
 *   output's size is read for the last time, nothing from element i of the output on is written. Blocks are read as a whole, then written.
 * - lp_sub_byte_conv reads all that a block of its pixels needs before it writes the block; the pools over sub-byte codes keep the order of
 *   pixels; sums, products and tables of them read up to LP_RUN elements, then write these. Four bytes are written as a whole, those bits that
 *   belong to other elements as they were.
 * - lp_matmul, lp_transposed_conv, the copies, and convolutions whose weights are decoded a part at a time have inputs and output apart.
 * - pad_top and pad_left may be negative: the window then begins inside the image. */
#ifndef LP_H
#define LP_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const int8_t *weights;      /* (out_c, kernel_h, kernel_w, in_c / groups); depthwise (kernel_h, kernel_w, channels) */
    const int32_t *bias;        /* less in_zero times the sum of the weights, so that sums are over codes */
    const int32_t *multipliers; /* one for each output channel */
    const int8_t *shifts;
    int16_t in_h, in_w, in_c, out_h, out_w, out_c, groups;
    int16_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int16_t in_zero, out_zero, low, high;
    int16_t out_stride; /* codes from one pixel of the output to the next: out_c, or more where only some filters are computed */
} lp_conv;

typedef void lp_conv_kernel(const lp_conv *p, const int8_t *in, int8_t *out);

typedef struct {
    lp_conv conv; /* without weights */
    lp_conv_kernel *kernel;
    const uint8_t *codes; /* indices, lowest bits first, each filter from a new byte on */
    const int8_t *table;
    int32_t filter; /* weights of a filter */
    int16_t tile, bits; /* filters decoded at a time */
} lp_packed_conv;

typedef struct {
    lp_conv conv; /* without weights */
    lp_conv_kernel *kernel;
    const uint8_t *codes; /* state, first byte highest, then the bytes that refill it */
    const int8_t *table;
    const uint8_t *slots; /* 256: the symbol of each remainder */
    const uint16_t *frequencies, *starts; /* of each symbol, in 1/256 */
    int32_t filter;
    int16_t tile;
} lp_coded_conv;

/* How the codes of a tensor lie: of 8 bits one to a byte, or of 4 or 2 bits 8 or 16 to four bytes; a code is `base` and its bits. Element i of
 * those in four bytes lies in byte i % 4, from bit i / 4 * bits on, so that a mask gives four codes. */
typedef struct {
    int16_t bits, base;
} lp_codes;

typedef struct {
    lp_codes in, out;
    int32_t behind;  /* bytes of scratch before the codes of an output's block */
    int16_t columns; /* pixels of a row that are computed at a time */
} lp_blocks;

typedef struct {
    lp_conv conv;
    lp_conv_kernel *kernel;
    lp_blocks blocks;
} lp_sub_byte_conv;

typedef struct {
    lp_packed_conv packed_conv;
    lp_blocks blocks;
} lp_sub_byte_packed_conv;

typedef struct {
    lp_coded_conv coded_conv;
    lp_blocks blocks;
} lp_sub_byte_coded_conv;

typedef struct {
    int16_t in_h, in_w, channels, out_h, out_w;
    int16_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left;
    int16_t in_zero, out_zero, low, high;
} lp_pool;

typedef struct {
    lp_pool pool;
    const int32_t *multipliers; /* for 1, 2, 3... elements of the window inside the image */
    const int8_t *shifts;
} lp_mean_pool;

typedef struct {
    int32_t count, period; /* the second tensor repeats after so many elements */
    int32_t multiplier_a, multiplier_b, multiplier_out;
    int8_t shift_a, shift_b, shift_out, sign;
    int16_t zero_a, zero_b, out_zero, low, high;
} lp_add;

typedef struct {
    int32_t count, period, multiplier;
    int16_t zero_a, zero_b, out_zero, low, high, shift;
} lp_multiply;

typedef struct {
    const int8_t *table; /* 256 codes, for -128 first */
    int32_t count;
} lp_table;

typedef struct {
    lp_pool pool;
    lp_codes in, out;
} lp_sub_byte_pool;

typedef struct {
    lp_mean_pool mean_pool;
    lp_codes in, out;
} lp_sub_byte_mean_pool;

typedef struct {
    lp_add add;
    lp_codes a, b, out;
} lp_sub_byte_add;

typedef struct {
    lp_multiply multiply;
    lp_codes a, b, out;
} lp_sub_byte_multiply;

typedef struct {
    lp_table table;
    lp_codes in, out;
} lp_sub_byte_table;

typedef struct {
    const int32_t *exponentials; /* of the differences 0, -1, ... -255 */
    int32_t rows, depth;
} lp_softmax;

typedef struct {
    int32_t batch, rows, inner, columns;
    int32_t stride_a[3], stride_b[3], offset_a, offset_b;
    int32_t multiplier;
    int16_t zero_a, zero_b, out_zero, low, high, shift;
} lp_matmul;

typedef struct {
    const int32_t *multipliers;
    const int8_t *shifts;
    const int32_t *beta;
    int64_t epsilon;
    int32_t rows, depth;
    int16_t zero, centred;
} lp_normalise;

typedef struct {
    const int8_t *table; /* 256 codes, for -128 first; lp_copy_s8 has none */
    int32_t size[5], stride_in[5], stride_out[5], offset_in, offset_out;
} lp_copy;

typedef struct {
    lp_copy copy;
    lp_codes in, out;
} lp_sub_byte_copy;

typedef struct {
    int32_t count;
    int16_t value;
} lp_fill;

void lp_conv_s8(const lp_conv *p, const int8_t *in, int8_t *out);
void lp_pointwise_s8(const lp_conv *p, const int8_t *in, int8_t *out);
void lp_depthwise_s8(const lp_conv *p, const int8_t *in, int8_t *out);
void lp_depthwise_in_place_s8(const lp_conv *p, int8_t *buffer, int8_t *scratch);
void lp_pointwise_in_place_s8(const lp_conv *p, const int8_t *in, int8_t *out, int8_t *scratch);
void lp_packed_conv_s8(const lp_packed_conv *p, const int8_t *in, int8_t *out, int8_t *scratch);
void lp_coded_conv_s8(const lp_coded_conv *p, const int8_t *in, int8_t *out, int8_t *scratch);
void lp_transposed_conv_s8(const lp_conv *p, const int8_t *in, int8_t *out);
void lp_max_pool_s8(const lp_pool *p, const int8_t *in, int8_t *out);
void lp_average_pool_s8(const lp_pool *p, const int8_t *in, int8_t *out);
void lp_mean_pool_s8(const lp_mean_pool *p, const int8_t *in, int8_t *out);
void lp_add_s8(const lp_add *p, const int8_t *a, const int8_t *b, int8_t *out);
void lp_multiply_s8(const lp_multiply *p, const int8_t *a, const int8_t *b, int8_t *out);
void lp_table_s8(const lp_table *p, const int8_t *in, int8_t *out);
void lp_softmax_s8(const lp_softmax *p, const int8_t *in, int8_t *out);
void lp_matmul_s8(const lp_matmul *p, const int8_t *a, const int8_t *b, int8_t *out);
void lp_normalise_s8(const lp_normalise *p, const int8_t *in, int8_t *out);
void lp_copy_s8(const lp_copy *p, const int8_t *in, int8_t *out);
void lp_copy_table_s8(const lp_copy *p, const int8_t *in, int8_t *out);
void lp_fill_s8(const lp_fill *p, int8_t *out);
void lp_sub_byte_conv_s8(const lp_sub_byte_conv *p, const int8_t *in, int8_t *out, int8_t *scratch);
void lp_sub_byte_packed_conv_s8(const lp_sub_byte_packed_conv *p, const int8_t *in, int8_t *out, int8_t *scratch);
void lp_sub_byte_coded_conv_s8(const lp_sub_byte_coded_conv *p, const int8_t *in, int8_t *out, int8_t *scratch);
void lp_sub_byte_max_pool_s8(const lp_sub_byte_pool *p, const int8_t *in, int8_t *out);
void lp_sub_byte_average_pool_s8(const lp_sub_byte_pool *p, const int8_t *in, int8_t *out);
void lp_sub_byte_mean_pool_s8(const lp_sub_byte_mean_pool *p, const int8_t *in, int8_t *out);
void lp_sub_byte_add_s8(const lp_sub_byte_add *p, const int8_t *a, const int8_t *b, int8_t *out);
void lp_sub_byte_multiply_s8(const lp_sub_byte_multiply *p, const int8_t *a, const int8_t *b, int8_t *out);
void lp_sub_byte_table_s8(const lp_sub_byte_table *p, const int8_t *in, int8_t *out);
void lp_sub_byte_copy_s8(const lp_sub_byte_copy *p, const int8_t *in, int8_t *out);

/* `count` codes of a tensor from element `first` on, one to a byte. */
void lp_unpack(lp_codes codes, const int8_t *from, int32_t first, int32_t count, int8_t *to);
/* The other way; all other elements stay. */
void lp_pack(lp_codes codes, const int8_t *from, int32_t count, int8_t *to, int32_t first);
/* The filters of p, from number `first` of the whole convolution on, over sub-byte codes. */
void lp_conv_blocks(const lp_blocks *b, const lp_conv *p, lp_conv_kernel *kernel, int32_t first, const int8_t *in, int8_t *out, int8_t *scratch);

/* a * b / 2^31 to the nearest, ties up. */
static inline int32_t lp_high_multiply(int32_t a, int32_t b)
{
    return (a == INT32_MIN && b == INT32_MIN) ? INT32_MAX : (int32_t)(((int64_t)a * b + (1 << 30)) >> 31);
}

/* x / 2^exponent to the nearest, ties away from zero. */
static inline int32_t lp_divide_by_power(int32_t x, int exponent)
{
    int32_t mask = (int32_t)((1u << exponent) - 1u);
    int32_t remainder = x & mask, threshold = (mask >> 1) + (x < 0);
    return (x >> exponent) + (remainder > threshold);
}

/* Twice x 2^-exponent M of lp_rescale before its last bit is rounded away, and with 2 zero + 1 added, so that the half of it is the code.
 * To divide with ties away from zero is to take 1 from what is below zero and to divide with ties up. exponent >= 1. */
static inline int32_t lp_twice(int32_t x, int32_t multiplier, int exponent, int32_t zero)
{
    const int32_t high = (int32_t)(((int64_t)x * multiplier + (1 << 30)) >> 31);
    return ((high + (high >> 31)) >> (exponent - 1)) + 2 * zero + 1;
}

/* x M. The lowering keeps x 2^shift within 32 bits. */
static inline int32_t lp_rescale(int32_t x, int32_t multiplier, int shift)
{
#ifdef LP_SINGLE_ROUNDING
    return (int32_t)(((int64_t)x * multiplier + ((int64_t)1 << (30 - shift))) >> (31 - shift));
#else
    return shift < 0 ? lp_twice(x, multiplier, -shift, 0) >> 1
                     : (int32_t)(((int64_t)(int32_t)((uint32_t)x << shift) * multiplier + (1 << 30)) >> 31);
#endif
}

static inline int32_t lp_clamp(int32_t x, int32_t low, int32_t high)
{
    return x < low ? low : x > high ? high : x;
}

static inline int8_t lp_finish(const lp_conv *p, int32_t sum, int32_t channel)
{
    return (int8_t)lp_clamp(lp_rescale(sum, p->multipliers[channel], p->shifts[channel]) + p->out_zero, p->low, p->high);
}

/* Some of a convolution's filters, with weights that are decoded. */
static inline lp_conv lp_filters(const lp_conv *p, int32_t first, int32_t count, const int8_t *weights)
{
    lp_conv part = *p;
    part.weights = weights;
    part.bias += first;
    part.multipliers += first;
    part.shifts += first;
    part.out_c = (int16_t)count;
    return part;
}

#ifdef __cplusplus
}
#endif

#endif
