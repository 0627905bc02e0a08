// Kernels for Python: flat arrays and sizes in, status out. Every call releases the interpreter's lock.
#include "bindings_kernels.h"

#include <array>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/tuple.h>
#include <tuple>

#include "convolution.h"
#include "gemm_sparse.h"
#include "gemm_sparse_bytes.h"

namespace nb = nanobind;

template <typename T> using Array = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Words = Array<const uint64_t>;
using Integers = Array<int32_t>;
using Bytes = Array<uint8_t>;
using Window = std::array<size_t, 14>; // batch, height, width, channels, kernel, stride, dilation, pad

static lp_path path_of(int path) { return static_cast<lp_path>(path); }

static lp_signs rows_of(const Words &words, size_t rows, size_t columns) { return {words.data(), words.shape(0), rows, columns}; }

static lp_workspace workspace(Bytes &work) { return {work.data(), work.shape(0)}; }

void bind_signs(nb::module_ &module) {
    module.def("has_path", [](int path) { return lp_has_path(path_of(path)) != 0; }, nb::arg("path"), "Whether it can run here.");
    module.def("sign_words", &lp_sign_words, nb::arg("columns"), "Words of a row of signs.");
    module.def(
        "sign_rows",
        [](int path, Array<const float> values, size_t columns, Array<uint64_t> words) {
            nb::gil_scoped_release released;
            return static_cast<int>(
                lp_sign_rows(path_of(path), values.data(), values.shape(0), columns, words.data(), words.shape(0)));
        },
        nb::arg("path"), nb::arg("values"), nb::arg("columns"), nb::arg("words"), "Signs of floats; returns a status.");
    module.def(
        "threshold_rows",
        [](int path, Array<const int32_t> values, Array<const int32_t> least, Words flip, Array<uint64_t> words) {
            nb::gil_scoped_release released;
            if (flip.shape(0) < lp_sign_words(least.shape(0))) {
                return static_cast<int>(LP_TOO_SHORT);
            }
            const lp_thresholds thresholds = {least.data(), flip.data(), least.shape(0)};
            return static_cast<int>(
                lp_threshold_rows(path_of(path), values.data(), values.shape(0), &thresholds, words.data(), words.shape(0)));
        },
        nb::arg("path"), nb::arg("values"), nb::arg("least"), nb::arg("flip"), nb::arg("words"),
        "Signs of integers against thresholds; returns a status.");
}

void bind_products(nb::module_ &module) {
    module.def(
        "gemm_binary_workspace",
        [](int path, std::array<size_t, 3> mnk) { return lp_gemm_binary_workspace(path_of(path), mnk[0], mnk[1], mnk[2]); },
        nb::arg("path"), nb::arg("mnk"), "Bytes that `gemm_binary` wants.");
    module.def(
        "gemm_binary",
        [](int path, Words a, Words b, std::array<size_t, 3> mnk, Integers c, Bytes work) {
            nb::gil_scoped_release released;
            const lp_signs left = rows_of(a, mnk[0], mnk[2]), right = rows_of(b, mnk[1], mnk[2]);
            return static_cast<int>(lp_gemm_binary(path_of(path), &left, &right, c.data(), c.shape(0), workspace(work)));
        },
        nb::arg("path"), nb::arg("a"), nb::arg("b"), nb::arg("mnk"), nb::arg("c"), nb::arg("work"),
        "Product of rows of signs; returns a status.");
    module.def("low_size", &lp_low_size, nb::arg("n"), nb::arg("k"), nb::arg("bits"), "Bytes of packed weights.");
    module.def(
        "low_pack",
        [](Array<const uint8_t> codes, std::array<size_t, 2> nk, unsigned bits, Bytes panels) {
            nb::gil_scoped_release released;
            const lp_low_weights shape = {nullptr, 0, nk[0], nk[1], bits};
            return static_cast<int>(lp_low_pack(codes.data(), codes.shape(0), &shape, panels.data(), panels.shape(0)));
        },
        nb::arg("codes"), nb::arg("nk"), nb::arg("bits"), nb::arg("panels"), "Pack weights into panels; returns a status.");
    module.def(
        "gemm_low_workspace", [](int path, size_t m, size_t k) { return lp_gemm_low_workspace(path_of(path), m, k); },
        nb::arg("path"), nb::arg("m"), nb::arg("k"), "Bytes that `gemm_low` wants.");
    module.def(
        "gemm_low",
        [](int path, Array<const uint8_t> a, bool is_signed, std::tuple<Array<const uint8_t>, unsigned> weights,
           std::array<size_t, 3> mnk, Integers c, Bytes work) {
            nb::gil_scoped_release released;
            const auto &[panels, bits] = weights;
            const lp_activations rows = {a.data(), a.shape(0), mnk[0], is_signed};
            const lp_low_weights columns = {panels.data(), panels.shape(0), mnk[1], mnk[2], bits};
            return static_cast<int>(lp_gemm_low(path_of(path), &rows, &columns, c.data(), c.shape(0), workspace(work)));
        },
        nb::arg("path"), nb::arg("a"), nb::arg("is_signed"), nb::arg("weights"), nb::arg("mnk"), nb::arg("c"), nb::arg("work"),
        "Product of bytes and packed weights; returns a status.");
}

void bind_sparse(nb::module_ &module) {
    module.def(
        "gemm_sparse_workspace", [](int path, size_t m, size_t k) { return lp_gemm_sparse_workspace(path_of(path), m, k); },
        nb::arg("path"), nb::arg("m"), nb::arg("k"), "Bytes that `gemm_sparse` wants.");
    module.def(
        "gemm_sparse",
        [](int path, Array<const float> a, std::tuple<Array<const float>, Array<const uint32_t>, Array<const uint64_t>> weights,
           std::array<size_t, 3> mnk, Array<float> c, Bytes work) {
            nb::gil_scoped_release released;
            const auto &[values, columns, starts] = weights;
            if (starts.shape(0) == 0 || values.shape(0) / LP_SPARSE_ROWS < columns.shape(0)) {
                return static_cast<int>(LP_TOO_SHORT);
            }
            const lp_sparse_weights w = {values.data(), columns.data(), columns.shape(0), starts.data(), starts.shape(0) - 1,
                                         mnk[1],        mnk[2]};
            return static_cast<int>(
                lp_gemm_sparse(path_of(path), a.data(), a.shape(0), mnk[0], &w, c.data(), c.shape(0), workspace(work)));
        },
        nb::arg("path"), nb::arg("a"), nb::arg("weights"), nb::arg("mnk"), nb::arg("c"), nb::arg("work"),
        "Product of floats and sparse weights; returns a status.");
    module.def(
        "gemm_sparse_bytes_workspace",
        [](int path, size_t m, size_t k) { return lp_gemm_sparse_bytes_workspace(path_of(path), m, k); }, nb::arg("path"), nb::arg("m"),
        nb::arg("k"), "Bytes that `gemm_sparse_bytes` wants.");
    module.def(
        "gemm_sparse_bytes",
        [](int path, Array<const uint8_t> a, bool is_signed,
           std::tuple<Array<const int8_t>, Array<const uint32_t>, Array<const uint64_t>> weights, std::array<size_t, 3> mnk, Integers c,
           Bytes work) {
            nb::gil_scoped_release released;
            const auto &[values, quads, starts] = weights;
            if (starts.shape(0) == 0 || values.shape(0) / LP_SPARSE_QUAD < quads.shape(0)) {
                return static_cast<int>(LP_TOO_SHORT);
            }
            const lp_activations rows = {a.data(), a.shape(0), mnk[0], is_signed};
            const lp_sparse_bytes w = {values.data(), quads.data(), quads.shape(0), starts.data(), starts.shape(0) - 1, mnk[1], mnk[2]};
            return static_cast<int>(lp_gemm_sparse_bytes(path_of(path), &rows, &w, c.data(), c.shape(0), workspace(work)));
        },
        nb::arg("path"), nb::arg("a"), nb::arg("is_signed"), nb::arg("weights"), nb::arg("mnk"), nb::arg("c"), nb::arg("work"),
        "Product of bytes and sparse weights; returns a status.");
}

static lp_window window_of(const Window &w) {
    return {w[0], w[1], w[2], w[3], {w[4], w[5]}, {w[6], w[7]}, {w[8], w[9]}, {w[10], w[11], w[12], w[13]}};
}

static lp_binary_convolution binary(const Window &window, size_t n, bool pad_minus) {
    return {window_of(window), nullptr, 0, nullptr, 0, n, pad_minus};
}

static lp_low_convolution low(const Window &window, bool is_signed, unsigned fill, size_t n, unsigned bits) {
    const size_t k = window[3] * window[4] * window[5]; // checked against the window by the library
    return {window_of(window), nullptr, 0, is_signed, static_cast<uint8_t>(fill), {nullptr, 0, n, k, bits}};
}

void bind_convolutions(nb::module_ &module) {
    module.def(
        "window_output",
        [](const Window &window) {
            size_t height = 0, width = 0;
            const lp_window w = window_of(window);
            const int status = lp_window_output(&w, &height, &width);
            return std::tuple<int, size_t, size_t>(status, height, width);
        },
        nb::arg("window"), "Status, height and width of the output.");
    module.def(
        "convolve_binary_workspace",
        [](int path, const Window &window, size_t n, bool pad_minus) {
            const lp_binary_convolution c = binary(window, n, pad_minus);
            return lp_convolve_binary_workspace(path_of(path), &c);
        },
        nb::arg("path"), nb::arg("window"), nb::arg("n"), nb::arg("pad_minus"), "Bytes that `convolve_binary` wants.");
    module.def(
        "convolve_binary",
        [](int path, const Window &window, Words pixels, Words weights, std::tuple<size_t, bool> n_and_pad_minus, Integers c,
           Bytes work) {
            nb::gil_scoped_release released;
            lp_binary_convolution convolution = binary(window, std::get<0>(n_and_pad_minus), std::get<1>(n_and_pad_minus));
            convolution.pixels = pixels.data();
            convolution.pixel_words = pixels.shape(0);
            convolution.weights = weights.data();
            convolution.weight_words = weights.shape(0);
            return static_cast<int>(lp_convolve_binary(path_of(path), &convolution, c.data(), c.shape(0), workspace(work)));
        },
        nb::arg("path"), nb::arg("window"), nb::arg("pixels"), nb::arg("weights"), nb::arg("n_and_pad_minus"), nb::arg("c"),
        nb::arg("work"), "Convolution of signs; returns a status.");
    module.def(
        "convolve_low_workspace",
        [](int path, const Window &window, size_t n, unsigned bits) {
            const lp_low_convolution c = low(window, false, 0, n, bits);
            return lp_convolve_low_workspace(path_of(path), &c);
        },
        nb::arg("path"), nb::arg("window"), nb::arg("n"), nb::arg("bits"), "Bytes that `convolve_low` wants.");
    module.def(
        "convolve_low",
        [](int path, const Window &window, std::tuple<Array<const uint8_t>, bool, unsigned> pixels,
           std::tuple<Array<const uint8_t>, size_t, unsigned> weights, Integers c, Bytes work) {
            nb::gil_scoped_release released;
            const auto &[values, is_signed, fill] = pixels;
            const auto &[panels, n, bits] = weights;
            lp_low_convolution convolution = low(window, is_signed, fill, n, bits);
            convolution.pixels = values.data();
            convolution.size = values.shape(0);
            convolution.weights.panels = panels.data();
            convolution.weights.size = panels.shape(0);
            return static_cast<int>(lp_convolve_low(path_of(path), &convolution, c.data(), c.shape(0), workspace(work)));
        },
        nb::arg("path"), nb::arg("window"), nb::arg("pixels"), nb::arg("weights"), nb::arg("c"), nb::arg("work"),
        "Convolution of bytes with packed weights; returns a status.");
}
