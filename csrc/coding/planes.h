/* Words of 2, 4 or 8 bytes as planes, one of each byte of a word, the highest first; with `rotate`, of the words rotated left by one bit. */
#ifndef LILLIPUT_PLANES_H
#define LILLIPUT_PLANES_H

#include <stddef.h>
#include <stdint.h>

#include "../status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* `planes` has room for width * count bytes, plane after plane. */
lp_status lp_split_planes(const uint8_t *words, size_t count, unsigned width, int rotate, uint8_t *planes);

/* `planes[i]` points to `count` bytes, the i-th of each word counted from the highest. */
lp_status lp_join_planes(const uint8_t *const *planes, size_t count, unsigned width, int rotate, uint8_t *words);

#ifdef __cplusplus
}
#endif

#endif
