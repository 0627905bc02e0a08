#include "signs.h"

#include "signs_paths.h"

typedef void (*sign_row)(const float *values, size_t columns, uint64_t *words);
typedef void (*threshold_row)(const int32_t *values, const lp_thresholds *thresholds, uint64_t *words);

size_t lp_sign_words(size_t columns) { return columns / 64u + (columns % 64u != 0u); }

static lp_status check_words(const void *words, size_t size, size_t rows, size_t columns) {
    const size_t each = lp_sign_words(columns);
    if (each != 0u && rows > size / each) {
        return LP_TOO_SHORT;
    }
    return words == NULL && rows != 0u && each != 0u ? LP_NULL : LP_OK;
}

lp_status lp_check_signs(const lp_signs *signs) {
    return signs == NULL ? LP_NULL : check_words(signs->words, signs->size, signs->rows, signs->columns);
}

static void sign_row_portable(const float *values, size_t columns, uint64_t *words) {
    for (size_t start = 0; start < columns; start += 64u) {
        const size_t here = columns - start < 64u ? columns - start : 64u;
        uint64_t word = 0u;
        for (size_t i = 0; i < here; ++i) {
            word |= (uint64_t)(values[start + i] >= 0.0f) << i;
        }
        words[start / 64u] = word;
    }
}

static void threshold_row_portable(const int32_t *values, const lp_thresholds *thresholds, uint64_t *words) {
    for (size_t start = 0; start < thresholds->columns; start += 64u) {
        const size_t left = thresholds->columns - start, here = left < 64u ? left : 64u;
        uint64_t word = 0u;
        for (size_t i = 0; i < here; ++i) {
            const uint64_t flip = (thresholds->flip[start / 64u] >> i) & 1u;
            word |= ((uint64_t)(values[start + i] >= thresholds->least[start + i]) ^ flip) << i;
        }
        words[start / 64u] = word;
    }
}

#if LP_X86
static const sign_row SIGN_ROW[] = {sign_row_portable, lp_sign_row_avx2, lp_sign_row_avx512};
static const threshold_row THRESHOLD_ROW[] = {threshold_row_portable, lp_threshold_row_avx2, lp_threshold_row_avx512};
#else
static const sign_row SIGN_ROW[] = {sign_row_portable};
static const threshold_row THRESHOLD_ROW[] = {threshold_row_portable};
#endif

/* The number of rows, or an error: what both functions have in common. */
static lp_status rows_of(size_t count, size_t columns, const void *values, uint64_t *words, size_t size) {
    if (columns == 0u ? count != 0u : count % columns != 0u) {
        return LP_BAD_SHAPE;
    }
    if (count == 0u) {
        return LP_OK;
    }
    return values == NULL ? LP_NULL : check_words(words, size, count / columns, columns);
}

lp_status lp_sign_rows(lp_path path, const float *values, size_t count, size_t columns, uint64_t *words, size_t size) {
    if (!lp_has_path(path)) {
        return LP_BAD_PATH;
    }
    const lp_status status = rows_of(count, columns, values, words, size);
    for (size_t start = 0; status == LP_OK && start < count; start += columns) {
        SIGN_ROW[path](values + start, columns, words);
        words += lp_sign_words(columns);
    }
    return status;
}

lp_status lp_threshold_rows(lp_path path, const int32_t *values, size_t count, const lp_thresholds *thresholds, uint64_t *words,
                            size_t size) {
    if (!lp_has_path(path)) {
        return LP_BAD_PATH;
    }
    if (thresholds == NULL || (thresholds->columns != 0u && (thresholds->least == NULL || thresholds->flip == NULL))) {
        return LP_NULL;
    }
    const lp_status status = rows_of(count, thresholds->columns, values, words, size);
    for (size_t start = 0; status == LP_OK && start < count; start += thresholds->columns) {
        THRESHOLD_ROW[path](values + start, thresholds, words);
        words += lp_sign_words(thresholds->columns);
    }
    return status;
}
