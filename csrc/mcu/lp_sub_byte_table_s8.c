/* Any function of one code, of sub-byte codes. */
#include "lp_run.h"

void lp_sub_byte_table_s8(const lp_sub_byte_table *p, const int8_t *in, int8_t *out)
{
    int8_t x[LP_RUN];
    lp_table part = p->table;
    const int32_t count = part.count;
    for (int32_t at = 0; at < count; at += part.count) {
        part.count = lp_run(count - at, count, at);
        lp_unpack(p->in, in, at, part.count, x);
        lp_table_s8(&part, x, x);
        lp_pack(p->out, x, part.count, out, at);
    }
}
