/* A copy of sub-byte codes with strides along five axes, through a table of codes if there is one. */
#include "lp_run.h"

/* The innermost axis. */
static void line(const lp_sub_byte_copy *p, const int8_t *in, int32_t from, int8_t *out, int32_t to)
{
    int8_t x[LP_RUN];
    const int32_t count = p->copy.size[4], step_in = p->copy.stride_in[4], step_out = p->copy.stride_out[4];
    const int8_t *table = p->copy.table;
    for (int32_t at = 0, n; at < count; at += n) {
        n = step_in == 1 && step_out == 1 ? lp_run(count - at, count, at) : 1;
        lp_unpack(p->in, in, from + at * step_in, n, x);
        for (int32_t i = 0; table && i < n; i++) x[i] = table[x[i] + 128];
        lp_pack(p->out, x, n, out, to + at * step_out);
    }
}

void lp_sub_byte_copy_s8(const lp_sub_byte_copy *p, const int8_t *in, int8_t *out)
{
    const lp_copy *q = &p->copy;
    for (int32_t a = 0; a < q->size[0]; a++) {
        for (int32_t b = 0; b < q->size[1]; b++) {
            for (int32_t c = 0; c < q->size[2]; c++) {
                for (int32_t d = 0; d < q->size[3]; d++) {
                    const int32_t from = q->offset_in + a * q->stride_in[0] + b * q->stride_in[1] + c * q->stride_in[2] + d * q->stride_in[3];
                    const int32_t to = q->offset_out + a * q->stride_out[0] + b * q->stride_out[1] + c * q->stride_out[2] + d * q->stride_out[3];
                    line(p, in, from, out, to);
                }
            }
        }
    }
}
