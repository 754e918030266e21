// The Python module fastadv._C: what was built. Importing it registers the operators of ops/, which need torch to be
// imported first.
#include <pybind11/pybind11.h>

#include "instruction_set.h"

namespace py = pybind11;

namespace fastadv {

void add_testing(py::module_ m);  // testing.cpp

namespace {

py::dict build_info() {
  py::dict info;
  info["version"] = FASTADV_VERSION;
  info["compiler"] = FASTADV_COMPILER;
  info["torch_headers"] = FASTADV_TORCH_VERSION;
  info["cuda"] = FASTADV_CUDA_VERSION;      // empty: built without CUDA
  info["cuda_archs"] = FASTADV_CUDA_ARCHS;  // as CMake names them
  info["cpu_isas"] = FASTADV_CPU_ISAS;
  return info;
}

}  // namespace
}  // namespace fastadv

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled operators of fastadv.";
  m.def("build_info", &fastadv::build_info, "Versions, instruction sets and CUDA architectures of this build.");
  m.def("cpu_isa", &fastadv::cpu::instruction_set_name, "The instruction set of the CPU kernels in use.");
  fastadv::add_testing(m.def_submodule("testing", "What tests alone call."));
}
