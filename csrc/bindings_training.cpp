#include "bindings_training.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>

#include <string>
#include <utility>

#include "fake_quantize.h"

namespace nb = nanobind;

template <typename T>
using Values = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Results = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Simulated quantization on values of one type; false where sizes differ or the limits are too wide for float32.
template <typename T>
static void fake_quantize(nb::module_ &module, const char *type, void (*forward)(const T *, T *, size_t, float, float, float),
                          double (*backward)(const T *, const T *, T *, size_t, float, float, float)) {
    const auto fits = [](float scale, float low, float high) { return scale != 0.0f && low >= -0x1p20f && high <= 0x1p20f; };
    module.def(
        (std::string("fake_quantize_") + type).c_str(),
        [=](Values<T> x, Results<T> y, float scale, float low, float high) {
            if (x.shape(0) != y.shape(0) || !fits(scale, low, high)) {
                return false;
            }
            nb::gil_scoped_release released;
            forward(x.data(), y.data(), x.shape(0), scale, low, high);
            return true;
        },
        nb::arg("x").noconvert(), nb::arg("y").noconvert(), nb::arg("scale"), nb::arg("low"), nb::arg("high"),
        "`clamp(rint(x / scale), low, high) * scale` into `y`; whether it was done.");
    module.def(
        (std::string("fake_quantize_backward_") + type).c_str(),
        [=](Values<T> x, Values<T> grad, Results<T> grad_x, float scale, float low, float high) {
            if (x.shape(0) != grad.shape(0) || x.shape(0) != grad_x.shape(0) || !fits(scale, low, high)) {
                return std::make_pair(false, 0.0);
            }
            nb::gil_scoped_release released;
            return std::make_pair(true, backward(x.data(), grad.data(), grad_x.data(), x.shape(0), scale, low, high));
        },
        nb::arg("x").noconvert(), nb::arg("grad").noconvert(), nb::arg("grad_x").noconvert(), nb::arg("scale"), nb::arg("low"), nb::arg("high"),
        "The gradient to `x` into `grad_x`; whether it was done, and the gradient to the scale.");
}

void bind_training(nb::module_ &module) {
    fake_quantize<float>(module, "f32", &lp_fake_quantize_f32, &lp_fake_quantize_backward_f32);
    fake_quantize<uint16_t>(module, "bf16", &lp_fake_quantize_bf16, &lp_fake_quantize_backward_bf16);
}
