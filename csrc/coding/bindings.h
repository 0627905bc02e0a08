// Entropy coders for Python: what each file of bindings adds to the module.
#ifndef LILLIPUT_CODING_BINDINGS_H
#define LILLIPUT_CODING_BINDINGS_H

#include <nanobind/nanobind.h>

void bind_rans(nanobind::module_ &module);
void bind_arithmetic(nanobind::module_ &module);
void bind_cabac(nanobind::module_ &module);
void bind_huffman(nanobind::module_ &module);
void bind_tunstall(nanobind::module_ &module);

#endif
