/* Any function of one code; sixteen at once, read before they are written. */
#include "lp_mve.h"

void lp_table_s8(const lp_table *p, const int8_t *in, int8_t *out)
{
    const uint8x16_t first = vdupq_n_u8(128); /* the table begins with -128 */
    __asm__ volatile("wlstp.8 lr, %[n], 2f\n"
                     "1:\n\t"
                     "vldrb.8 q0, [%[in]], #16\n\t"
                     "veor q0, q0, %q[first]\n\t"
                     "vldrb.u8 q1, [%[table], q0]\n\t"
                     "vstrb.8 q1, [%[out]], #16\n\t"
                     "letp lr, 1b\n"
                     "2:"
                     : [in] "+&r"(in), [out] "+&r"(out)
                     : [n] "r"(p->count), [table] "r"(p->table), [first] "w"(first)
                     : "q0", "q1", "lr", "memory");
}
