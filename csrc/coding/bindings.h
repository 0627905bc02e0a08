// Entropy coders for Python: what each file of bindings adds to the module.
#ifndef LILLIPUT_CODING_BINDINGS_H
#define LILLIPUT_CODING_BINDINGS_H

#include <nanobind/nanobind.h>

void bind_rans(nanobind::module_ &module);

#endif
