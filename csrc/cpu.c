#include "cpu.h"

int lp_has_path(lp_path path) {
    switch (path) {
    case LP_PORTABLE:
        return 1;
#if LP_X86
    case LP_AVX2:
        return __builtin_cpu_supports("avx2") != 0;
    case LP_AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
               __builtin_cpu_supports("avx512vpopcntdq");
#endif
    default:
        return 0;
    }
}

lp_path lp_best_path(void) { return lp_has_path(LP_AVX512) ? LP_AVX512 : lp_has_path(LP_AVX2) ? LP_AVX2 : LP_PORTABLE; }
