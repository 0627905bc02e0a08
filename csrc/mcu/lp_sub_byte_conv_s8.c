/* Convolution over sub-byte codes. */
#include "lp.h"

void lp_sub_byte_conv_s8(const lp_sub_byte_conv *p, const int8_t *in, int8_t *out, int8_t *scratch)
{
    lp_conv_blocks(&p->blocks, &p->conv, p->kernel, 0, in, out, scratch);
}
