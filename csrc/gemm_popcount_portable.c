#include "gemm_binary_paths.h"

void lp_popcount_portable(const lp_product *p) {
    for (size_t i = 0; i < p->m; ++i) {
        const uint64_t *a = p->a + i * p->words;
        for (size_t j = 0; j < p->n; ++j) {
            const uint64_t *b = p->b + j * p->words;
            uint32_t count = 0u;
            for (size_t word = 0; word + 1u < p->words; ++word) {
                count += lp_count(a[word] ^ b[word]);
            }
            if (p->words != 0u) {
                count += lp_count((a[p->words - 1u] ^ b[p->words - 1u]) & p->tail);
            }
            p->c[i * p->stride + j] = (int32_t)((int64_t)p->total - 2 * (int64_t)count);
        }
    }
}
