// Canonical Huffman codes for Python: arrays in, status and bytes out. Every call that takes long releases the interpreter's lock.
#include "bindings.h"

#include <memory>

#include "huffman.h"

static Coded table(Array<const int64_t> counts) {
    uint64_t each[256];
    uint8_t lengths[256], present[256], bytes[LP_HUFFMAN_TABLE_MOST];
    size_t size = 0;
    if (counts.shape(0) != 256) return coded(LP_BAD_SHAPE, bytes, 0);
    for (size_t s = 0; s < 256; ++s) {
        each[s] = counts.data()[s] > 0 ? static_cast<uint64_t>(counts.data()[s]) : 0u;
        present[s] = each[s] != 0u;
    }
    lp_status status = lp_huffman_lengths(each, lengths);
    if (status == LP_OK) status = lp_huffman_write(lengths, present, bytes, &size);
    return coded(status, bytes, size);
}

static Coded encode(Bytes symbols, Bytes table) {
    size_t size = 0;
    std::unique_ptr<uint8_t[]> room(new uint8_t[lp_huffman_bound(symbols.shape(0))]);
    lp_status status;
    {
        nb::gil_scoped_release released;
        status = lp_huffman_encode(table.data(), table.shape(0), symbols.data(), symbols.shape(0), room.get(), &size);
    }
    return coded(status, room.get(), size);
}

static int decode(int path, Bytes from, Bytes table, Array<uint8_t> symbols) {
    nb::gil_scoped_release released;
    lp_huffman_code code;
    const lp_status status = lp_huffman_parse(table.data(), table.shape(0), &code, nullptr, nullptr);
    if (status != LP_OK) return static_cast<int>(status);
    std::unique_ptr<uint64_t[]> work(new uint64_t[LP_HUFFMAN_WORK]);
    return static_cast<int>(lp_huffman_decode(&code, {from.data(), from.shape(0)}, symbols.data(), symbols.shape(0), work.get(),
                                              static_cast<lp_path>(path)));
}

static int decode_small(Bytes from, Bytes table, Array<uint8_t> symbols, size_t part) {
    nb::gil_scoped_release released;
    lp_huffman_code code;
    lp_huffman_reader reader;
    lp_status status = lp_huffman_parse(table.data(), table.shape(0), &code, nullptr, nullptr);
    if (status == LP_OK) status = lp_huffman_open(&reader, &code, {from.data(), from.shape(0)}, symbols.shape(0));
    for (size_t at = 0; status == LP_OK && part != 0 && at < symbols.shape(0); at += part) {
        const size_t left = symbols.shape(0) - at;
        status = lp_huffman_next(&reader, symbols.data() + at, part < left ? part : left);
    }
    return static_cast<int>(status);
}

void bind_huffman(nb::module_ &module) {
    module.def(
        "chunk_streams", [](size_t count) {
            const lp_streams layout = lp_streams_of(count);
            return std::tuple<size_t, size_t>(layout.streams, layout.header);
        },
        nb::arg("count"), "Streams of a chunk of Huffman or Tunstall codes, and the bytes of its header.");
    module.def("huffman_table", &table, nb::arg("counts"), "A status and the serialised table.");
    module.def(
        "huffman_lengths", [](Bytes table, Array<uint8_t> lengths, Array<uint8_t> present) {
            lp_huffman_code code;
            if (lengths.shape(0) != 256 || present.shape(0) != 256) return static_cast<int>(LP_BAD_SHAPE);
            return static_cast<int>(lp_huffman_parse(table.data(), table.shape(0), &code, lengths.data(), present.data()));
        },
        nb::arg("table"), nb::arg("lengths"), nb::arg("present"), "Lengths of codes, and which symbols have any; returns a status.");
    module.def("huffman_encode", &encode, nb::arg("symbols"), nb::arg("table"), "A status and the chunk.");
    module.def("huffman_decode", &decode, nb::arg("path"), nb::arg("coded"), nb::arg("table"), nb::arg("symbols"),
               "Fill `symbols`; returns a status.");
    module.def("huffman_decode_small", &decode_small, nb::arg("coded"), nb::arg("table"), nb::arg("symbols"), nb::arg("part"),
               "The same without large tables, `part` symbols at a time; returns a status.");
}
