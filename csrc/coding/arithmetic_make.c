#include <math.h>
#include <string.h>

#include "arithmetic.h"
#include "bit_io.h"

/* Frequencies that add up to 2^precision, at least one for each symbol that occurs, near those of least size. */
static void share_out(const int64_t counts[256], double total, unsigned precision, uint32_t frequency[256]) {
    int32_t left = (int32_t)(1u << precision);
    for (unsigned s = 0; s < 256u; ++s) {
        const double ideal = (double)counts[s] / total * (double)(1u << precision);
        frequency[s] = counts[s] == 0 ? 0u : ideal < 1.5 ? 1u : (uint32_t)(ideal + 0.5);
        left -= (int32_t)frequency[s];
    }
    while (left != 0) {
        /* One more where that saves most bits, or one less where it costs fewest, to first order. */
        unsigned best = 0u;
        double most = -1.0;
        for (unsigned s = 0; s < 256u; ++s) {
            const double c = (double)counts[s], f = (double)frequency[s], worth = left > 0 ? c / (f + 0.5) : (f - 0.5) / c;
            if (counts[s] != 0 && (left > 0 || frequency[s] > 1u) && worth > most) {
                most = worth;
                best = s;
            }
        }
        frequency[best] = left > 0 ? frequency[best] + 1u : frequency[best] - 1u;
        left += left > 0 ? -1 : 1;
    }
}

static size_t write_table(const uint32_t frequency[256], unsigned precision, unsigned first, unsigned last, uint8_t *bytes) {
    bytes[0] = (uint8_t)precision;
    bytes[1] = (uint8_t)first;
    bytes[2] = (uint8_t)(last - first);
    lp_bit_writer writer = {bytes + 3, 0, 0, 0};
    unsigned before = 4u;
    for (unsigned s = first; s < last; ++s) {
        const unsigned width = lp_width(frequency[s]);
        lp_write_unary(&writer, width >= before ? 2u * (width - before) : 2u * (before - width) - 1u);
        if (width != 0u) {
            lp_write_bits(&writer, frequency[s] - (1u << (width - 1u)), width - 1u);
        }
        before = width;
    }
    return 3u + lp_write_end(&writer);
}

/* Bits of the symbols, in whole and without the table. */
static double coded_bits(const int64_t counts[256], const uint32_t frequency[256], unsigned precision) {
    double bits = 0.0;
    for (unsigned s = 0; s < 256u; ++s) {
        bits += counts[s] == 0 ? 0.0 : (double)counts[s] * (precision - log2(frequency[s]));
    }
    return bits;
}

lp_status lp_arithmetic_make(const int64_t counts[256], uint8_t bytes[LP_ARITHMETIC_TABLE_MAX], size_t *size) {
    double total = 0.0, least = INFINITY;
    unsigned first = 256u, last = 0u, distinct = 0u;
    for (unsigned s = 0; s < 256u; ++s) {
        if (counts[s] < 0) {
            return LP_BAD_SHAPE;
        }
        if (counts[s] != 0) {
            total += (double)counts[s];
            first = first == 256u ? s : first;
            last = s;
            distinct += 1u;
        }
    }
    bytes[0] = 0u;
    bytes[1] = (uint8_t)(first & 255u);
    *size = 2u;
    for (unsigned precision = 1u; precision <= LP_ARITHMETIC_PRECISION && distinct > 1u; ++precision) {
        uint32_t frequency[256];
        uint8_t candidate[LP_ARITHMETIC_TABLE_MAX];
        if (distinct > 1u << precision) {
            continue;
        }
        share_out(counts, total, precision, frequency);
        const size_t taken = write_table(frequency, precision, first, last, candidate);
        const double bits = coded_bits(counts, frequency, precision) + 8.0 * (double)taken;
        if (bits < least) {
            least = bits;
            *size = taken;
            memcpy(bytes, candidate, taken);
        }
    }
    return LP_OK;
}
