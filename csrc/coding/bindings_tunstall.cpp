// Tunstall codes for Python: arrays in, status and bytes out. Every call that takes long releases the interpreter's lock.
#include "bindings.h"

#include <memory>

#include "tunstall.h"

static lp_status read(const Bytes &table, lp_tunstall_code &code) {
    return lp_tunstall_parse(table.data(), table.shape(0), &code);
}

static std::unique_ptr<uint64_t[]> workspace(size_t bytes) {
    return std::unique_ptr<uint64_t[]>(new uint64_t[bytes / 8 + 1]);
}

static Coded table(Bytes costs, unsigned bits, unsigned kind) {
    uint8_t bytes[LP_TUNSTALL_TABLE_MOST];
    size_t size = 0;
    const lp_status status = costs.shape(0) == 256 ? lp_tunstall_write(costs.data(), bits, kind, bytes, &size) : LP_BAD_SHAPE;
    return coded(status, bytes, size);
}

static std::tuple<int, double> rate(Bytes table, Array<const double> counts) {
    nb::gil_scoped_release released;
    lp_tunstall_code code;
    const lp_status status = counts.shape(0) == 256 ? read(table, code) : LP_BAD_SHAPE;
    if (status != LP_OK || code.count < 2) return {static_cast<int>(status), 0.0};
    const auto work = workspace(lp_tunstall_encode_work(&code));
    return {static_cast<int>(status), lp_tunstall_rate(&code, counts.data(), work.get())};
}

static Coded encode(Bytes symbols, Bytes table) {
    lp_tunstall_code code;
    size_t size = 0;
    std::unique_ptr<uint8_t[]> room;
    lp_status status;
    {
        nb::gil_scoped_release released;
        status = read(table, code);
        if (status == LP_OK) {
            const auto work = workspace(lp_tunstall_encode_work(&code));
            room.reset(new uint8_t[lp_tunstall_bound(&code, symbols.shape(0))]);
            status = lp_tunstall_encode(&code, symbols.data(), symbols.shape(0), room.get(), &size, work.get());
        }
    }
    return coded(status, room.get(), size);
}

static int decode(Bytes from, Bytes table, Array<uint8_t> symbols, bool small) {
    nb::gil_scoped_release released;
    lp_tunstall_code code;
    const lp_status status = read(table, code);
    if (status != LP_OK) return static_cast<int>(status);
    const auto work = workspace(small ? lp_tunstall_small_work(&code) : lp_tunstall_decode_work(&code));
    const auto decoder = small ? lp_tunstall_decode_small : lp_tunstall_decode;
    return static_cast<int>(decoder(&code, {from.data(), from.shape(0)}, symbols.data(), symbols.shape(0), work.get()));
}

void bind_tunstall(nb::module_ &module) {
    module.def("tunstall_table", &table, nb::arg("costs"), nb::arg("bits"), nb::arg("kind"), "A status and the serialised table.");
    module.def(
        "tunstall_read", [](Bytes table) {
            lp_tunstall_code code;
            const lp_status status = read(table, code);
            return std::tuple<int, unsigned, unsigned, unsigned>(static_cast<int>(status), code.bits, code.kind, code.count);
        },
        nb::arg("table"), "A status, the bits of a word, the kind of dictionary, and the symbols of the alphabet.");
    module.def("tunstall_rate", &rate, nb::arg("table"), nb::arg("counts"), "A status and the symbols of an average word.");
    module.def("tunstall_encode", &encode, nb::arg("symbols"), nb::arg("table"), "A status and the chunk.");
    module.def(
        "tunstall_decode", [](Bytes from, Bytes table, Array<uint8_t> symbols) { return decode(from, table, symbols, false); },
        nb::arg("coded"), nb::arg("table"), nb::arg("symbols"), "Fill `symbols`; returns a status.");
    module.def(
        "tunstall_decode_small", [](Bytes from, Bytes table, Array<uint8_t> symbols) { return decode(from, table, symbols, true); },
        nb::arg("coded"), nb::arg("table"), nb::arg("symbols"), "The same without strings; returns a status.");
}
