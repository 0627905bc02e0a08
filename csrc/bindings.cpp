// lilliput._native: the C library for Python. Arrays in, status out; src/lilliput/core turns status into errors.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "bindings_kernels.h"
#include "bindings_training.h"
#include "bits.h"
#include "coding/bindings.h"

namespace nb = nanobind;

using Input = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

NB_MODULE(_native, module) {
    module.doc() = "Lilliput's C library.";
    module.attr("OK") = static_cast<int>(LP_OK);
    module.attr("BAD_BITS") = static_cast<int>(LP_BAD_BITS);
    module.attr("BAD_CODE") = static_cast<int>(LP_BAD_CODE);
    module.attr("TOO_SHORT") = static_cast<int>(LP_TOO_SHORT);
    module.attr("BAD_SHAPE") = static_cast<int>(LP_BAD_SHAPE);
    module.attr("BAD_PATH") = static_cast<int>(LP_BAD_PATH);
    module.attr("CORRUPT") = static_cast<int>(LP_CORRUPT);

    module.def("packed_size", &lp_packed_size, nb::arg("count"), nb::arg("bits"),
               "Bytes that `count` codes take; 0 for bad bits.");
    module.def(
        "pack",
        [](Input codes, unsigned bits, Output packed) {
            nb::gil_scoped_release released;
            return static_cast<int>(lp_pack(codes.data(), codes.shape(0), bits, packed.data(), packed.shape(0)));
        },
        nb::arg("codes"), nb::arg("bits"), nb::arg("packed"), "Pack `codes` into `packed`; returns a status.");
    module.def(
        "unpack",
        [](Input packed, unsigned bits, Output codes) {
            nb::gil_scoped_release released;
            return static_cast<int>(lp_unpack(packed.data(), packed.shape(0), bits, codes.data(), codes.shape(0)));
        },
        nb::arg("packed"), nb::arg("bits"), nb::arg("codes"), "Unpack into `codes`; returns a status.");
    bind_signs(module);
    bind_products(module);
    bind_sparse(module);
    bind_convolutions(module);
    bind_training(module);
    bind_rans(module);
    bind_arithmetic(module);
    bind_cabac(module);
    bind_huffman(module);
    bind_tunstall(module);
}
