/* Bytes as a count, a table and a chunk of Tunstall codes, for both decoders. Build and run: see fuzz.sh beside this file. */
#include <stdlib.h>
#include <string.h>

#include "coding/tunstall.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 5) return 0;
    /* Up to 2^13 symbols: one stream and four. */
    const size_t count = (size_t)(data[0] | (data[1] & 31) << 8), told = data[3] | (data[4] & 3u) << 8;
    const size_t split = told < size - 5 ? told : size - 5, rest = size - 5 - split;
    /* Memory of their own, so that the sanitizer sees every byte beyond the end. */
    uint8_t *table = malloc(split + !split), *bytes = malloc(rest + !rest);
    lp_tunstall_code code;
    memcpy(table, data + 5, split);
    memcpy(bytes, data + 5 + split, rest);
    /* Dictionaries of more than 2^9 words take long to build and are no different: seldom. */
    if (lp_tunstall_parse(table, split, &code) == LP_OK && (code.bits < 10 || data[2] % 16 == 15)) {
        const lp_tunstall_chunk chunk = {bytes, rest};
        uint8_t *symbols = malloc(count + !count), *again = malloc(count + !count);
        /* As large as they have to be, and kept. */
        static void *large[17][2], *small[17][2];
        void **one_work = &large[code.bits][code.kind], **two_work = &small[code.bits][code.kind];
        if (!*one_work) *one_work = malloc(lp_tunstall_decode_work(&code));
        if (!*two_work) *two_work = malloc(lp_tunstall_small_work(&code));
        const lp_status one = lp_tunstall_decode(&code, chunk, symbols, count, *one_work);
        const lp_status two = lp_tunstall_decode_small(&code, chunk, again, count, *two_work);
        if (one != two || (one == LP_OK && memcmp(symbols, again, count))) abort();
        free(symbols);
        free(again);
    }
    free(table);
    free(bytes);
    return 0;
}
