/* Rows of signs: one bit a value, set for +1 and clear for -1.
 *
 * Layout: a row of `columns` values takes lp_sign_words(columns) words of 64 bits; column k is bit k mod 64 (0 being the
 * least significant) of word k / 64. The unused high bits of a row's last word are zero. On a little-endian machine these
 * are the bytes that lp_pack writes for one row, filled up to a multiple of eight.
 *
 * No function allocates, reads past the given lengths, or writes past them.
 */
#ifndef LILLIPUT_SIGNS_H
#define LILLIPUT_SIGNS_H

#include <stddef.h>
#include <stdint.h>

#include "cpu.h"
#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const uint64_t *words;
    size_t size; /* words there are */
    size_t rows;
    size_t columns;
} lp_signs;

typedef struct {
    const int32_t *least; /* one for each column */
    const uint64_t *flip; /* one bit for each column, in the layout above */
    size_t columns;
} lp_thresholds;

/* Words that a row takes: ceil(columns / 64). */
size_t lp_sign_words(size_t columns);

/* Whether `signs` holds its rows: LP_BAD_SHAPE, LP_TOO_SHORT or LP_NULL where it does not. */
lp_status lp_check_signs(const lp_signs *signs);

/* Signs of `count` floats, rows of `columns`: a bit is set where x >= 0, so for -0 too, and not for NaN. `count` must be a
 * multiple of `columns`, and `words` have room for `size` words. */
lp_status lp_sign_rows(lp_path path, const float *values, size_t count, size_t columns, uint64_t *words, size_t size);

/* The same of integers against thresholds: bit (r, k) = (values[r][k] >= least[k]) xor flip[k]. */
lp_status lp_threshold_rows(lp_path path, const int32_t *values, size_t count, const lp_thresholds *thresholds, uint64_t *words,
                            size_t size);

#ifdef __cplusplus
}
#endif

#endif
