// Interleaved rANS, planes of words and the files' checksum for Python: arrays in, status and bytes out. Every call releases the interpreter's lock.
#include "bindings.h"

#include <memory>
#include <nanobind/stl/vector.h>
#include <vector>

#include "crc32c.h"
#include "planes.h"
#include "rans.h"

static Coded encode(Bytes symbols, Bytes table) {
    lp_rans_table read;
    size_t size = 0;
    const size_t capacity = lp_rans_bound(symbols.shape(0));
    std::unique_ptr<uint8_t[]> room(new uint8_t[capacity]);
    lp_status status;
    {
        nb::gil_scoped_release released;
        status = lp_rans_read(table.data(), table.shape(0), &read);
        if (status == LP_OK) status = lp_rans_encode(symbols.data(), symbols.shape(0), &read, room.get(), capacity, &size);
    }
    return coded(status, room.get(), size);
}

static int decode(int path, Bytes from, Bytes table, Array<uint8_t> symbols) {
    nb::gil_scoped_release released;
    lp_rans_table read;
    const lp_status status = lp_rans_read(table.data(), table.shape(0), &read);
    if (status != LP_OK) return static_cast<int>(status);
    std::unique_ptr<uint32_t[]> slots(new uint32_t[size_t(1) << read.bits]);
    return static_cast<int>(
        lp_rans_decode(from.data(), from.shape(0), &read, slots.get(), symbols.data(), symbols.shape(0), static_cast<lp_path>(path)));
}

static int join_planes(std::vector<Bytes> planes, bool rotate, Array<uint8_t> words) {
    const size_t width = planes.size(), count = width ? words.shape(0) / width : 0;
    std::vector<const uint8_t *> starts;
    for (const Bytes &plane : planes) {
        if (plane.shape(0) != count) return static_cast<int>(LP_BAD_SHAPE);
        starts.push_back(plane.data());
    }
    if (width == 0 || words.shape(0) != width * count) return static_cast<int>(LP_BAD_SHAPE);
    nb::gil_scoped_release released;
    return static_cast<int>(lp_join_planes(starts.data(), count, static_cast<unsigned>(width), rotate, words.data()));
}

void bind_rans(nb::module_ &module) {
    module.def(
        "split_planes", [](Bytes words, unsigned width, bool rotate, Array<uint8_t> planes) {
            nb::gil_scoped_release released;
            if (width == 0 || words.shape(0) % width || planes.shape(0) != words.shape(0)) return static_cast<int>(LP_BAD_SHAPE);
            return static_cast<int>(lp_split_planes(words.data(), words.shape(0) / width, width, rotate, planes.data()));
        },
        nb::arg("words"), nb::arg("width"), nb::arg("rotate"), nb::arg("planes"), "Planes of words, the highest byte first; returns a status.");
    module.def("join_planes", &join_planes, nb::arg("planes"), nb::arg("rotate"), nb::arg("words"), "Words of planes; returns a status.");
    module.def(
        "crc32c", [](int path, Bytes bytes, uint32_t before) {
            nb::gil_scoped_release released;
            return lp_crc32c(before, bytes.data(), bytes.shape(0), static_cast<lp_path>(path));
        },
        nb::arg("path"), nb::arg("bytes"), nb::arg("before"), "CRC-32C of what `before` is of, followed by `bytes`.");
    module.def(
        "count_symbols", [](Bytes symbols, Array<int64_t> counts) {
            nb::gil_scoped_release released;
            if (counts.shape(0) != 256) return static_cast<int>(LP_BAD_SHAPE);
            lp_count_symbols(symbols.data(), symbols.shape(0), counts.data());
            return static_cast<int>(LP_OK);
        },
        nb::arg("symbols"), nb::arg("counts"), "Add how often each symbol occurs to 256 `counts`; returns a status.");
    module.def(
        "rans_table", [](Array<const int64_t> counts, unsigned precision, int mode) {
            uint8_t bytes[LP_RANS_TABLE_MAX];
            size_t size = 0;
            const lp_status status =
                counts.shape(0) == 256 ? lp_rans_make(counts.data(), precision, static_cast<lp_rans_mode>(mode), bytes, &size) : LP_BAD_SHAPE;
            return coded(status, bytes, size);
        },
        nb::arg("counts"), nb::arg("precision"), nb::arg("mode"), "A status and the serialised table.");
    module.def(
        "rans_bits", [](Bytes table, Array<const int64_t> counts) {
            lp_rans_table read;
            lp_status status = lp_rans_read(table.data(), table.shape(0), &read);
            if (counts.shape(0) != 256) status = LP_BAD_SHAPE;
            return std::tuple<int, double>(status, status == LP_OK ? lp_rans_bits(&read, counts.data()) : 0.0);
        },
        nb::arg("table"), nb::arg("counts"), "A status and the bits of a chunk.");
    module.def("rans_encode", &encode, nb::arg("symbols"), nb::arg("table"), "A status and the chunk.");
    module.def("rans_decode", &decode, nb::arg("path"), nb::arg("coded"), nb::arg("table"), nb::arg("symbols"), "Fill `symbols`; returns a status.");
}
