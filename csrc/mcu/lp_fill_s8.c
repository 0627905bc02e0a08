/* One code everywhere. */
#include <string.h>

#include "lp.h"

void lp_fill_s8(const lp_fill *p, int8_t *out)
{
    memset(out, (uint8_t)p->value, (size_t)p->count);
}
