#include "patches.h"

#include <string.h>

static int valid(size_t value, size_t least) { return value >= least && value <= LP_EXTENT; }

/* Positions along one axis; 0 where there is none. */
static size_t along(size_t extent, size_t pad, size_t kernel, size_t dilation, size_t stride) {
    const size_t reach = (kernel - 1u) * dilation; /* below 2^32 */
    return extent + pad > reach ? (extent + pad - reach - 1u) / stride + 1u : 0u;
}

lp_status lp_window_output(const lp_window *window, size_t *height, size_t *width) {
    if (window == NULL || height == NULL || width == NULL) {
        return LP_NULL;
    }
    const lp_window w = *window;
    int good = valid(w.height, 1u) && valid(w.width, 1u) && valid(w.channels, 1u);
    for (size_t i = 0; i < 2u; ++i) {
        good = good && valid(w.kernel[i], 1u) && valid(w.stride[i], 1u) && valid(w.dilation[i], 1u);
        good = good && valid(w.pad[i], 0u) && valid(w.pad[i + 2u], 0u);
    }
    if (!good) {
        return LP_BAD_SHAPE;
    }
    *height = along(w.height, w.pad[0] + w.pad[2], w.kernel[0], w.dilation[0], w.stride[0]);
    *width = along(w.width, w.pad[1] + w.pad[3], w.kernel[1], w.dilation[1], w.stride[1]);
    return *height != 0u && *width != 0u ? LP_OK : LP_BAD_SHAPE;
}

/* a * b * c, or LP_BAD_SHAPE where it does not fit. */
static lp_status product(size_t a, size_t b, size_t c, size_t *out) {
    if ((b != 0u && a > SIZE_MAX / b) || (c != 0u && a * b > SIZE_MAX / c)) {
        return LP_BAD_SHAPE;
    }
    *out = a * b * c;
    return LP_OK;
}

lp_status lp_plan_patches(const lp_window *window, lp_patches *plan) {
    plan->window = window;
    lp_status status = lp_window_output(window, &plan->height, &plan->width);
    if (status == LP_OK) {
        status = product(window->batch, plan->height, plan->width, &plan->positions);
    }
    if (status == LP_OK) {
        status = product(window->batch, window->height, window->width, &plan->pixels);
    }
    return status == LP_OK ? product(window->kernel[0], window->kernel[1], 1u, &plan->taps) : status;
}

int lp_patches_are_pixels(const lp_window *w) {
    const int plain = w->kernel[0] == 1u && w->kernel[1] == 1u && w->stride[0] == 1u && w->stride[1] == 1u;
    return plain && w->pad[0] == 0u && w->pad[1] == 0u && w->pad[2] == 0u && w->pad[3] == 0u;
}

/* Whether taps from `from` on, `reach` further at most, lie between the padding before and after `extent` pixels. */
static int within(size_t from, size_t reach, size_t pad, size_t extent) { return from >= pad && from + reach - pad < extent; }

lp_corner lp_corner_of(const lp_patches *plan, size_t position) {
    const lp_window *w = plan->window;
    const size_t line = position / plan->width;
    lp_corner corner = {.image = line / plan->height, .row = line % plan->height * w->stride[0],
                        .column = position % plan->width * w->stride[1]};
    corner.inside = within(corner.row, (w->kernel[0] - 1u) * w->dilation[0], w->pad[0], w->height) &&
                    within(corner.column, (w->kernel[1] - 1u) * w->dilation[1], w->pad[1], w->width);
    return corner;
}

int lp_tap(const lp_patches *plan, const lp_corner *corner, size_t i, size_t j, size_t *pixel) {
    const lp_window *w = plan->window;
    const size_t row = corner->row + i * w->dilation[0], column = corner->column + j * w->dilation[1];
    if (!within(row, 0u, w->pad[0], w->height) || !within(column, 0u, w->pad[1], w->width)) {
        return 0;
    }
    *pixel = (corner->image * w->height + row - w->pad[0]) * w->width + column - w->pad[1];
    return 1;
}

static void write_patch(const lp_patches *plan, const lp_corner *corner, const uint8_t *pixels, size_t unit, uint8_t fill,
                        uint8_t *patch) {
    const lp_window *w = plan->window;
    size_t pixel = 0;
    for (size_t i = 0; i < w->kernel[0]; ++i) {
        if (corner->inside && w->dilation[1] == 1u && lp_tap(plan, corner, i, 0u, &pixel)) {
            memcpy(patch, pixels + pixel * unit, w->kernel[1] * unit);
            patch += w->kernel[1] * unit;
            continue;
        }
        for (size_t j = 0; j < w->kernel[1]; ++j, patch += unit) {
            if (lp_tap(plan, corner, i, j, &pixel)) {
                memcpy(patch, pixels + pixel * unit, unit);
            } else {
                memset(patch, fill, unit);
            }
        }
    }
}

void lp_write_patches(const lp_patches *plan, size_t first, size_t count, const uint8_t *pixels, size_t unit, uint8_t fill,
                      uint8_t *patches) {
    for (size_t position = first; position - first < count; ++position) {
        const lp_corner corner = lp_corner_of(plan, position);
        write_patch(plan, &corner, pixels, unit, fill, patches);
        patches += plan->taps * unit;
    }
}
