/* Convolutions of binary and low-bit weights, images (N, H, W, C) to (N, H', W', n), by patches (patches.h) and products.
 *
 * Weights are rows in the order of a patch: n x kernel height x kernel width x channels. There are no groups.
 *
 * No function allocates: the caller hands over a workspace. None reads past the given lengths, or writes past them.
 */
#ifndef LILLIPUT_CONVOLUTION_H
#define LILLIPUT_CONVOLUTION_H

#include "gemm_binary.h"
#include "gemm_low.h"
#include "patches.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Signs: the channels of a pixel, and those of a tap of a weight, are a row of signs (signs.h) each, unused bits zero. */
typedef struct {
    lp_window window;
    const uint64_t *pixels;
    size_t pixel_words; /* there are */
    const uint64_t *weights;
    size_t weight_words; /* there are */
    size_t n;
    int pad_minus; /* padding is -1, as where bits are clear; otherwise 0, which a bit cannot hold and a correction makes exact */
} lp_binary_convolution;

/* 8-bit pixels against panels (gemm_low.h) with k = kernel height * kernel width * channels. */
typedef struct {
    lp_window window;
    const void *pixels; /* int8_t if is_signed, uint8_t otherwise */
    size_t size;        /* values there are */
    int is_signed;
    uint8_t fill; /* the padding, as a byte: the zero point of the pixels */
    lp_low_weights weights;
} lp_low_convolution;

/* Bytes that the convolution wants; SIZE_MAX where the shape is bad, so that no workspace suffices. */
size_t lp_convolve_binary_workspace(lp_path path, const lp_binary_convolution *convolution);
size_t lp_convolve_low_workspace(lp_path path, const lp_low_convolution *convolution);

/* Write batch * H' * W' * n values to `c`, which has room for `size`. LP_BAD_SHAPE for windows and sizes that cannot be,
 * LP_BAD_CODE where an unused bit is set. */
lp_status lp_convolve_binary(lp_path path, const lp_binary_convolution *convolution, int32_t *c, size_t size, lp_workspace work);
lp_status lp_convolve_low(lp_path path, const lp_low_convolution *convolution, int32_t *c, size_t size, lp_workspace work);

#ifdef __cplusplus
}
#endif

#endif
