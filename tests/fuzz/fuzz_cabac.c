/* Bytes as a shape and a stream of CABAC. What is accepted must survive being coded again. Build and run: see fuzz.sh beside this file. */
#include <stdlib.h>
#include <string.h>

#include "coding/cabac.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    const size_t rows = data[0] & 15, columns = data[1] & 31, count = rows * columns, left = size - 2;
    int32_t *values = malloc(4 * count + 1), *again = malloc(4 * count + 1);
    lp_cabac_model *model = malloc(sizeof *model);
    /* A copy of its own, so that the sanitizer sees every byte beyond the end. */
    uint8_t *coded = malloc(left + !left);
    memcpy(coded, data + 2, left);
    if (lp_cabac_decode(coded, left, model, values, rows, columns) == LP_OK && count) {
        const lp_cabac_parameters p = {coded[0] & 7u, coded[0] >> 3 & 3u, coded[0] >> 5 & 3u, coded[1] & 15u, coded[1] >> 4};
        uint8_t *twice = malloc(left);
        size_t room = left;
        if (lp_cabac_encode(values, rows, columns, &p, model, twice, &room) != LP_OK || room != left) abort();
        if (lp_cabac_decode(twice, left, model, again, rows, columns) != LP_OK || memcmp(values, again, 4 * count)) abort();
        free(twice);
    }
    free(values);
    free(again);
    free(model);
    free(coded);
    return 0;
}
