/* Packing of unsigned 1-, 2- and 4-bit codes.
 *
 * Layout: code i occupies bits [(i * bits) mod 8, (i * bits) mod 8 + bits) of byte (i * bits) / 8, bit 0 being the
 * least significant (little-endian within the byte). The unused high bits of the last byte are zero. This is the
 * layout of ONNX's int4 and int2 tensors.
 *
 * No function allocates, reads past the given lengths, or writes past them.
 */
#ifndef LILLIPUT_BITS_H
#define LILLIPUT_BITS_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes that `count` codes of `bits` bits take: ceil(count * bits / 8), computed without overflow; 0 for bad bits. */
size_t lp_packed_size(size_t count, unsigned bits);

/* Pack `count` codes into `packed`, which has room for `size` bytes. On error the output is unspecified. */
lp_status lp_pack(const uint8_t *codes, size_t count, unsigned bits, uint8_t *packed, size_t size);

/* Unpack `count` codes from the `size` bytes at `packed`. Bytes beyond the last code are ignored. */
lp_status lp_unpack(const uint8_t *packed, size_t size, unsigned bits, uint8_t *codes, size_t count);

#ifdef __cplusplus
}
#endif

#endif
