// Arithmetic coding of byte symbols for Python: arrays in, status and bytes out. Every call that takes long releases the interpreter's lock.
#include "bindings.h"

#include <memory>

#include "arithmetic.h"

static Coded table(Array<const int64_t> counts) {
    uint8_t bytes[LP_ARITHMETIC_TABLE_MAX];
    size_t size = 0;
    const lp_status status = counts.shape(0) == 256 ? lp_arithmetic_make(counts.data(), bytes, &size) : LP_BAD_SHAPE;
    return coded(status, bytes, size);
}

static std::tuple<int, unsigned> read_table(Bytes table, Array<uint32_t> frequencies) {
    lp_arithmetic_table from;
    if (frequencies.shape(0) != 256) return {static_cast<int>(LP_BAD_SHAPE), 0u};
    const lp_status status = lp_arithmetic_read(table.data(), table.shape(0), &from);
    if (status != LP_OK) return {static_cast<int>(status), 0u};
    for (size_t s = 0; s < 256; ++s) frequencies.data()[s] = from.below[s + 1] - from.below[s];
    if (from.precision == 0) frequencies.data()[from.first] = 1;
    return {static_cast<int>(LP_OK), from.precision};
}

template <typename Code> static Coded encode(size_t count, Code code) {
    size_t size = lp_arithmetic_bound(count);
    std::unique_ptr<uint8_t[]> room(new uint8_t[size]);
    lp_status status;
    {
        nb::gil_scoped_release released;
        status = code(room.get(), &size);
    }
    return coded(status, room.get(), size);
}

void bind_arithmetic(nb::module_ &module) {
    module.def("arithmetic_table", &table, nb::arg("counts"), "A status and the serialised table.");
    module.def("arithmetic_read", &read_table, nb::arg("table"), nb::arg("frequencies"), "Fill 256 `frequencies`; a status and log2 of their sum.");
    module.def(
        "arithmetic_encode",
        [](Bytes symbols, Bytes table) {
            return encode(symbols.shape(0), [&](uint8_t *room, size_t *size) {
                lp_arithmetic_table from;
                const lp_status status = lp_arithmetic_read(table.data(), table.shape(0), &from);
                return status != LP_OK ? status : lp_arithmetic_encode(symbols.data(), symbols.shape(0), &from, room, size);
            });
        },
        nb::arg("symbols"), nb::arg("table"), "A status and the chunk.");
    module.def(
        "arithmetic_decode",
        [](Bytes coded, Bytes table, Array<uint8_t> symbols) {
            nb::gil_scoped_release released;
            lp_arithmetic_table from;
            const lp_status status = lp_arithmetic_read(table.data(), table.shape(0), &from);
            return static_cast<int>(status != LP_OK ? status
                                                    : lp_arithmetic_decode(coded.data(), coded.shape(0), &from, symbols.data(), symbols.shape(0)));
        },
        nb::arg("coded"), nb::arg("table"), nb::arg("symbols"), "Fill `symbols`; returns a status.");
    module.def(
        "adaptive_encode",
        [](Bytes symbols) {
            return encode(symbols.shape(0), [&](uint8_t *room, size_t *size) {
                lp_arithmetic_model model;
                return lp_adaptive_encode(symbols.data(), symbols.shape(0), &model, room, size);
            });
        },
        nb::arg("symbols"), "A status and the chunk.");
    module.def(
        "adaptive_decode",
        [](Bytes coded, Array<uint8_t> symbols) {
            nb::gil_scoped_release released;
            lp_arithmetic_model model;
            return static_cast<int>(lp_adaptive_decode(coded.data(), coded.shape(0), &model, symbols.data(), symbols.shape(0)));
        },
        nb::arg("coded"), nb::arg("symbols"), "Fill `symbols`; returns a status.");
}
