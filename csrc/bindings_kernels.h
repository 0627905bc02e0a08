// The kernels' part of lilliput._native.
#pragma once
#include <nanobind/nanobind.h>

void bind_signs(nanobind::module_ &module);
void bind_products(nanobind::module_ &module);
void bind_sparse(nanobind::module_ &module);
void bind_convolutions(nanobind::module_ &module);
