// What training calls: simulated quantization of tensors.
#ifndef LILLIPUT_BINDINGS_TRAINING_H
#define LILLIPUT_BINDINGS_TRAINING_H

#include <nanobind/nanobind.h>

void bind_training(nanobind::module_ &module);

#endif
