/* Any function of one code. */
#include "lp.h"

void lp_table_s8(const lp_table *p, const int8_t *in, int8_t *out)
{
    for (int32_t i = 0; i < p->count; i++) out[i] = p->table[in[i] + 128];
}
