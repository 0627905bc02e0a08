#include "crc32c.h"

#include <string.h>

/* What four bits of the remainder contribute. */
static const uint32_t nibbles[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
                                     0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};

static uint32_t portable(uint32_t crc, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        crc = crc >> 4 ^ nibbles[crc & 15];
        crc = crc >> 4 ^ nibbles[crc & 15];
    }
    return crc;
}

#if LP_X86
#include <immintrin.h>

enum { PART = 4096 };

/* The remainder of what `crc` is of, followed by k PART zero bytes: a product with x^(8 k PART - 33). */
LP_ALWAYS_INLINE __attribute__((target("sse4.2,pclmul"))) uint64_t followed(uint64_t crc, uint32_t power)
{
    const __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi64_si128((long long)power), 0);
    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

LP_ALWAYS_INLINE uint64_t load64(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, 8);
    return word;
}

/* Three parts at a time, because one instruction waits for the one before. */
__attribute__((target("sse4.2,pclmul"))) static uint32_t with_instructions(uint32_t crc, const uint8_t *bytes, size_t size)
{
    uint64_t a = crc;
    for (; size >= 3 * PART; bytes += 3 * PART, size -= 3 * PART) {
        uint64_t b = 0, c = 0;
        for (size_t i = 0; i < PART; i += 8) {
            a = _mm_crc32_u64(a, load64(bytes + i));
            b = _mm_crc32_u64(b, load64(bytes + PART + i));
            c = _mm_crc32_u64(c, load64(bytes + 2 * PART + i));
        }
        a = followed(a, 0x54a86326) ^ followed(b, 0x82f89c77) ^ c;
    }
    for (; size >= 8; bytes += 8, size -= 8) a = _mm_crc32_u64(a, load64(bytes));
    for (; size; bytes++, size--) a = _mm_crc32_u8((uint32_t)a, *bytes);
    return (uint32_t)a;
}
#endif

uint32_t lp_crc32c(uint32_t checksum, const uint8_t *bytes, size_t size, lp_path path)
{
#if LP_X86
    /* Every processor with AVX2 has both instructions. */
    if (path != LP_PORTABLE) return ~with_instructions(~checksum, bytes, size);
#endif
    (void)path;
    return ~portable(~checksum, bytes, size);
}
