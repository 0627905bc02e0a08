/* Bytes as a count, a table and a chunk of static or adaptive arithmetic coding. Build and run: see fuzz.sh beside this file. */
#include <stdlib.h>
#include <string.h>

#include "coding/arithmetic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 5) return 0;
    /* Few symbols, or so many that adaptive frequencies are halved; no table means adaptive. */
    const size_t count = (size_t)(data[0] | (data[1] & 1) << 8) + (data[2] == 2 && data[1] == 0 ? 1u << 17 : 0u), told = data[3] | (data[4] & 7u) << 8;
    const size_t split = told < size - 5 ? told : size - 5, left = size - 5 - split;
    lp_arithmetic_table table;
    lp_arithmetic_model model;
    uint8_t *symbols = malloc(count + 1), *again = malloc(count + 1), *coded = malloc(left + !left), *twice = malloc(left + !left);
    /* Copies of their own, so that the sanitizer sees every byte beyond the end. */
    uint8_t *head = malloc(split + !split);
    memcpy(head, data + 5, split);
    memcpy(coded, data + 5 + split, left);
    size_t room = left;
    if (!split) {
        if (lp_adaptive_decode(coded, left, &model, symbols, count) == LP_OK) {
            if (lp_adaptive_encode(symbols, count, &model, twice, &room) != LP_OK || room != left) abort();
            if (lp_adaptive_decode(twice, left, &model, again, count) != LP_OK || memcmp(symbols, again, count)) abort();
        }
    } else if (lp_arithmetic_read(head, split, &table) == LP_OK && lp_arithmetic_decode(coded, left, &table, symbols, count) == LP_OK) {
        if (lp_arithmetic_encode(symbols, count, &table, twice, &room) != LP_OK || room != left) abort();
        if (lp_arithmetic_decode(twice, left, &table, again, count) != LP_OK || memcmp(symbols, again, count)) abort();
    }
    free(symbols);
    free(again);
    free(coded);
    free(twice);
    free(head);
    return 0;
}
