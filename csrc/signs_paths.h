/* One row at a time, for each path; sizes are checked by the caller. */
#ifndef LILLIPUT_SIGNS_PATHS_H
#define LILLIPUT_SIGNS_PATHS_H

#include "signs.h"

void lp_sign_row_avx2(const float *values, size_t columns, uint64_t *words);
void lp_sign_row_avx512(const float *values, size_t columns, uint64_t *words);
void lp_threshold_row_avx2(const int32_t *values, const lp_thresholds *thresholds, uint64_t *words);
void lp_threshold_row_avx512(const int32_t *values, const lp_thresholds *thresholds, uint64_t *words);

#endif
