/* CRC-32C (Castagnoli, polynomial 0x1EDC6F41, reflected, all ones at first and inverted at last): finds any burst of up to 32 bits. */
#ifndef LILLIPUT_CRC32C_H
#define LILLIPUT_CRC32C_H

#include <stddef.h>
#include <stdint.h>

#include "../cpu.h"
#include "../status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The checksum of what `checksum` is of (0: of nothing), followed by `size` bytes. The path is one that this processor has. */
uint32_t lp_crc32c(uint32_t checksum, const uint8_t *bytes, size_t size, lp_path path);

#ifdef __cplusplus
}
#endif

#endif
