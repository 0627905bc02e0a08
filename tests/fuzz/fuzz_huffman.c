/* Bytes as a count, a table and a chunk of Huffman codes, for all decoders. Build and run: see fuzz.sh beside this file. */
#include <stdlib.h>
#include <string.h>

#include "coding/huffman.h"

static lp_status in_parts(const lp_huffman_code *code, lp_huffman_chunk chunk, uint8_t *symbols, size_t count, size_t part)
{
    lp_huffman_reader reader;
    lp_status status = lp_huffman_open(&reader, code, chunk, count);
    for (size_t at = 0; status == LP_OK && at < count; at += part)
        status = lp_huffman_next(&reader, symbols + at, part < count - at ? part : count - at);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 5) return 0;
    /* Up to 2^13 symbols: one stream and four. */
    const size_t count = (size_t)(data[0] | (data[1] & 31) << 8), told = data[3] | (data[4] & 3u) << 8;
    const size_t split = told < size - 5 ? told : size - 5, rest = size - 5 - split;
    static uint64_t work[LP_HUFFMAN_WORK];
    /* Memory of their own, so that the sanitizer sees every byte beyond the end. */
    uint8_t *table = malloc(split + !split), *bytes = malloc(rest + !rest);
    uint8_t *symbols[3];
    lp_huffman_code code;
    memcpy(table, data + 5, split);
    memcpy(bytes, data + 5 + split, rest);
    if (lp_huffman_parse(table, split, &code, NULL, NULL) == LP_OK) {
        const lp_huffman_chunk chunk = {bytes, rest};
        for (int i = 0; i < 3; i++) symbols[i] = malloc(count + !count);
        const lp_status one = lp_huffman_decode(&code, chunk, symbols[0], count, work, LP_PORTABLE);
        const lp_status two = lp_huffman_decode(&code, chunk, symbols[1], count, work, lp_best_path());
        const lp_status three = in_parts(&code, chunk, symbols[2], count, 1u + count / (1u + data[2]));
        if (one != two || one != three) abort();
        if (one == LP_OK && (memcmp(symbols[0], symbols[1], count) || memcmp(symbols[0], symbols[2], count))) abort();
        for (int i = 0; i < 3; i++) free(symbols[i]);
    }
    free(table);
    free(bytes);
    return 0;
}
