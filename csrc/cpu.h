/* Instruction sets, chosen at run time. Every path of a function returns the same bits. */
#ifndef LILLIPUT_CPU_H
#define LILLIPUT_CPU_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    LP_PORTABLE = 0, /* C11 alone */
    LP_AVX2 = 1,
    LP_AVX512 = 2 /* AVX-512 F, BW, DQ, VL, VNNI and VPOPCNTDQ */
} lp_path;

/* Whether this build has the path and this processor (and its operating system) can run it. */
int lp_has_path(lp_path path);

/* The last path of the list above that can run. */
lp_path lp_best_path(void);

#ifdef __cplusplus
}
#endif

/* x86 paths exist where functions can be compiled for other instruction sets than their file. LP_PORTABLE_ONLY leaves them
 * out; the files *_avx2.c and *_avx512.c are then empty and need not be there. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(LP_PORTABLE_ONLY)
#define LP_X86 1
#define LP_TARGET_AVX2 __attribute__((target("avx2")))
#define LP_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vpopcntdq")))
#define LP_ALWAYS_INLINE __attribute__((always_inline)) static inline
/* Before a loop of few, constant turns over an array that is to stay in registers. */
#ifdef __clang__
#define LP_UNROLL _Pragma("unroll")
#else
#define LP_UNROLL _Pragma("GCC unroll 16")
#endif
#else
#define LP_X86 0
#define LP_ALWAYS_INLINE static inline
#endif

#endif
