// Entropy coders for Python: what each file of bindings adds to the module.
#ifndef LILLIPUT_CODING_BINDINGS_H
#define LILLIPUT_CODING_BINDINGS_H

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/tuple.h>
#include <tuple>

#include "../status.h"

namespace nb = nanobind;

template <typename T> using Array = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bytes = Array<const uint8_t>;
// A status, and the bytes where it is LP_OK.
using Coded = std::tuple<int, nb::bytes>;

inline Coded coded(lp_status status, const uint8_t *bytes, size_t size) {
    return {static_cast<int>(status), nb::bytes(reinterpret_cast<const char *>(bytes), status == LP_OK ? size : 0)};
}

void bind_rans(nanobind::module_ &module);
void bind_arithmetic(nanobind::module_ &module);
void bind_cabac(nanobind::module_ &module);
void bind_huffman(nanobind::module_ &module);
void bind_tunstall(nanobind::module_ &module);

#endif
