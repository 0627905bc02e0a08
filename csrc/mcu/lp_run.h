/* Operators that take each element by itself over sub-byte codes: some elements at a time. */
#ifndef LP_RUN_H
#define LP_RUN_H

#include "lp.h"

enum { LP_RUN = 64 };

/* How many elements come next, where `left` are left and the second tensor, which repeats after `period`, is at its element `at`: whole periods of a
 * short one, or no more than are left of a long one. */
static inline int32_t lp_run(int32_t left, int32_t period, int32_t at)
{
    int32_t most = period < LP_RUN ? LP_RUN - LP_RUN % period : LP_RUN;
    if (period >= LP_RUN && period - at < most) most = period - at;
    return left < most ? left : most;
}

#endif
