#include "bits.h"

static int valid_bits(unsigned bits) { return bits == 1u || bits == 2u || bits == 4u; }

size_t lp_packed_size(size_t count, unsigned bits) {
    if (!valid_bits(bits)) {
        return 0;
    }
    const size_t per_byte = 8u / bits;
    return count / per_byte + (count % per_byte != 0u);
}

static lp_status check(const uint8_t *from, const uint8_t *to, size_t count, unsigned bits, size_t size) {
    if (!valid_bits(bits)) {
        return LP_BAD_BITS;
    }
    if (size < lp_packed_size(count, bits)) {
        return LP_TOO_SHORT;
    }
    if (count != 0u && (from == NULL || to == NULL)) {
        return LP_NULL;
    }
    return LP_OK;
}

lp_status lp_pack(const uint8_t *codes, size_t count, unsigned bits, uint8_t *packed, size_t size) {
    const lp_status status = check(codes, packed, count, bits, size);
    if (status != LP_OK) {
        return status;
    }
    const size_t per_byte = 8u / bits;
    const unsigned limit = 1u << bits;
    unsigned seen = 0u; /* every bit set in any code: one comparison at the end instead of one for each code */
    for (size_t start = 0; start < count; start += per_byte) {
        const size_t left = count - start;
        const size_t here = left < per_byte ? left : per_byte;
        unsigned byte = 0u;
        for (size_t i = 0; i < here; ++i) {
            const unsigned code = codes[start + i];
            seen |= code;
            byte |= (code & (limit - 1u)) << (i * bits);
        }
        packed[start / per_byte] = (uint8_t)byte;
        if (left <= per_byte) {
            break; /* `start` would otherwise wrap for counts next to SIZE_MAX */
        }
    }
    return seen < limit ? LP_OK : LP_BAD_CODE;
}

lp_status lp_unpack(const uint8_t *packed, size_t size, unsigned bits, uint8_t *codes, size_t count) {
    const lp_status status = check(packed, codes, count, bits, size);
    if (status != LP_OK) {
        return status;
    }
    const size_t per_byte = 8u / bits;
    const unsigned mask = (1u << bits) - 1u;
    for (size_t start = 0; start < count; start += per_byte) {
        const size_t left = count - start;
        const size_t here = left < per_byte ? left : per_byte;
        const unsigned byte = packed[start / per_byte];
        for (size_t i = 0; i < here; ++i) {
            codes[start + i] = (uint8_t)((byte >> (i * bits)) & mask);
        }
        if (left <= per_byte) {
            break;
        }
    }
    return LP_OK;
}
