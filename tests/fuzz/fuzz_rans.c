/* Bytes as a count, a table and a chunk of rANS. Build and run: see fuzz.sh beside this file. */
#include <stdlib.h>
#include <string.h>

#include "coding/rans.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 5) return 0;
    /* Up to 2^18 symbols, so that every number of lanes is met. */
    const size_t count = (size_t)(data[0] | data[1] << 8 | (data[2] & 3) << 16), told = data[3] | (data[4] & 3u) << 8;
    const size_t split = told < size - 5 ? told : size - 5;
    lp_rans_table table;
    if (lp_rans_read(data + 5, split, &table) != LP_OK) return 0;
    uint8_t *symbols = malloc(count + 1), *again = malloc(count + 1);
    uint32_t *slots = malloc(sizeof *slots << table.bits);
    /* Copies of their own, so that the sanitizer sees every byte beyond the end. */
    uint8_t *chunk = malloc(size - 5 - split + 1);
    memcpy(chunk, data + 5 + split, size - 5 - split);
    chunk = realloc(chunk, size - 5 - split ? size - 5 - split : 1);
    const lp_status portable = lp_rans_decode(chunk, size - 5 - split, &table, slots, symbols, count, LP_PORTABLE);
    const lp_status best = lp_rans_decode(chunk, size - 5 - split, &table, slots, again, count, lp_best_path());
    if (portable != best || (portable == LP_OK && memcmp(symbols, again, count))) abort();
    free(symbols);
    free(again);
    free(slots);
    free(chunk);
    return 0;
}
