// CABAC for Python: flat arrays and shapes in, status out. Every call releases the interpreter's lock.
#include "bindings.h"

#include <array>
#include <memory>
#include <nanobind/stl/array.h>

#include "cabac.h"

using Shape = std::array<size_t, 2>;
using Parameters = std::array<unsigned, 5>; // rate, signs, neighbours, limit, shift

static bool fits(size_t size, const Shape &shape) {
    return shape[1] == 0 ? size == 0 : size / shape[1] == shape[0] && size % shape[1] == 0;
}

static lp_cabac_parameters parameters_of(const Parameters &p) { return {p[0], p[1], p[2], p[3], p[4]}; }

static std::unique_ptr<lp_cabac_model> model() { return std::unique_ptr<lp_cabac_model>(new lp_cabac_model); }

static std::tuple<int, Parameters> choose(Array<const int32_t> values, const Shape &shape) {
    nb::gil_scoped_release released;
    lp_cabac_parameters p = {0, 0, 0, 0, 0};
    const lp_status status =
        fits(values.shape(0), shape) ? lp_cabac_choose(values.data(), shape[0], shape[1], model().get(), &p) : LP_BAD_SHAPE;
    return {static_cast<int>(status), {p.rate, p.signs, p.neighbours, p.limit, p.shift}};
}

static std::tuple<int, uint64_t> size(Array<const int32_t> values, const Shape &shape, const Parameters &parameters) {
    nb::gil_scoped_release released;
    const lp_cabac_parameters p = parameters_of(parameters);
    uint64_t bytes = 0;
    const lp_status status =
        fits(values.shape(0), shape) ? lp_cabac_size(values.data(), shape[0], shape[1], &p, model().get(), &bytes) : LP_BAD_SHAPE;
    return {static_cast<int>(status), bytes};
}

static int encode(Array<const int32_t> values, const Shape &shape, const Parameters &parameters, Array<uint8_t> coded) {
    nb::gil_scoped_release released;
    const lp_cabac_parameters p = parameters_of(parameters);
    size_t room = coded.shape(0);
    if (!fits(values.shape(0), shape)) return static_cast<int>(LP_BAD_SHAPE);
    const lp_status status = lp_cabac_encode(values.data(), shape[0], shape[1], &p, model().get(), coded.data(), &room);
    return static_cast<int>(status != LP_OK || room == coded.shape(0) ? status : LP_BAD_SHAPE);
}

static int decode(Array<const uint8_t> coded, Array<int32_t> values, const Shape &shape) {
    nb::gil_scoped_release released;
    if (!fits(values.shape(0), shape)) return static_cast<int>(LP_BAD_SHAPE);
    return static_cast<int>(lp_cabac_decode(coded.data(), coded.shape(0), model().get(), values.data(), shape[0], shape[1]));
}

static int costs(Array<const int32_t> values, const Shape &shape, const Parameters &parameters, Array<uint32_t> costs) {
    nb::gil_scoped_release released;
    const lp_cabac_parameters p = parameters_of(parameters);
    const std::unique_ptr<lp_cabac_model> learnt = model();
    lp_cabac_place place;
    if (!fits(values.shape(0), shape) || costs.shape(0) != values.shape(0)) return static_cast<int>(LP_BAD_SHAPE);
    const lp_status status = lp_cabac_begin(learnt.get(), &place, &p);
    for (size_t i = 0; status == LP_OK && i < values.shape(0); ++i) {
        place.above = i >= shape[1] ? values.data()[i - shape[1]] : 0;
        costs.data()[i] = lp_cabac_cost(learnt.get(), &place, values.data()[i]);
        lp_cabac_advance(learnt.get(), &place, values.data()[i]);
    }
    return static_cast<int>(status);
}

static int quantize(Array<const float> weights, const Shape &shape, std::tuple<float, float, Array<const float>> trade,
                    const Parameters &parameters, Array<int32_t> codes) {
    nb::gil_scoped_release released;
    const auto &[step, slope, importance] = trade;
    const lp_cabac_parameters p = parameters_of(parameters);
    const size_t count = weights.shape(0), weighted = importance.shape(0);
    if (!fits(count, shape) || codes.shape(0) != count || (weighted != 0 && weighted != count)) return static_cast<int>(LP_BAD_SHAPE);
    const lp_cabac_trade by = {step, slope, weighted != 0 ? importance.data() : nullptr};
    return static_cast<int>(lp_cabac_quantize(weights.data(), shape[0], shape[1], &by, &p, model().get(), codes.data()));
}

void bind_cabac(nb::module_ &module) {
    module.def("cabac_choose", &choose, nb::arg("values"), nb::arg("shape"), "A status and rate, signs, neighbours, limit and shift.");
    module.def("cabac_size", &size, nb::arg("values"), nb::arg("shape"), nb::arg("parameters"), "A status and the bytes of the code.");
    module.def("cabac_encode", &encode, nb::arg("values"), nb::arg("shape"), nb::arg("parameters"), nb::arg("coded"),
               "Fill `coded`, of the size that `cabac_size` tells; returns a status.");
    module.def("cabac_decode", &decode, nb::arg("coded"), nb::arg("values"), nb::arg("shape"), "Fill `values`; returns a status.");
    module.def("cabac_costs", &costs, nb::arg("values"), nb::arg("shape"), nb::arg("parameters"), nb::arg("costs"),
               "What each value takes, in units of 2^-15 bit; returns a status.");
    module.def("cabac_quantize", &quantize, nb::arg("weights"), nb::arg("shape"), nb::arg("trade"), nb::arg("parameters"),
               nb::arg("codes"), "Rate-aware rounding by step, slope and importance (empty: 1); returns a status.");
}
