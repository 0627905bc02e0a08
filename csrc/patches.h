/* Windows that slide over images (N, H, W, C), and the patches under them as rows of a matrix.
 *
 * Output position (y, x) of tap (i, j) reads the pixel (y stride + i dilation - top, x stride + j dilation - left); outside of
 * the image it reads padding. A patch holds its taps row by row, and of each tap all channels.
 */
#ifndef LILLIPUT_PATCHES_H
#define LILLIPUT_PATCHES_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LP_EXTENT ((size_t)65535u) /* the largest value of any field of a window, except for batch */

typedef struct {
    size_t batch, height, width, channels; /* of the input */
    size_t kernel[2], stride[2], dilation[2];
    size_t pad[4]; /* top, left, bottom, right */
} lp_window;

/* Height and width of the output, floor((H + top + bottom - dilation (kernel - 1) - 1) / stride) + 1 and likewise.
 * LP_BAD_SHAPE where the kernel is larger than the padded image, or a field is 0 (save for batch and pad) or too large. */
lp_status lp_window_output(const lp_window *window, size_t *height, size_t *width);

/* What the other functions need to know; every product below fits in its type. */
typedef struct {
    const lp_window *window;
    size_t height, width; /* of the output */
    size_t positions;     /* batch * height * width */
    size_t pixels;        /* batch * height * width of the input */
    size_t taps;
} lp_patches;

lp_status lp_plan_patches(const lp_window *window, lp_patches *plan);

/* Whether every patch is one pixel and the patches are the pixels in their order. */
int lp_patches_are_pixels(const lp_window *window);

/* Where the first tap of a position lies, counted from the corner of the padded image. */
typedef struct {
    size_t image, row, column;
    int inside; /* whether no tap reads padding */
} lp_corner;

lp_corner lp_corner_of(const lp_patches *plan, size_t position);

/* Whether tap (i, j) reads a pixel, and then its index among all pixels. */
int lp_tap(const lp_patches *plan, const lp_corner *corner, size_t i, size_t j, size_t *pixel);

/* Write the patches of `count` positions from `first` on, each tap `unit` bytes, padding as bytes `fill`. */
void lp_write_patches(const lp_patches *plan, size_t first, size_t count, const uint8_t *pixels, size_t unit, uint8_t fill,
                      uint8_t *patches);

#ifdef __cplusplus
}
#endif

#endif
