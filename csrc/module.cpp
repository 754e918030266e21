// The Python module fastadv._C: what was built, and the sampler of eps for NumPy users. Importing it registers the
// operators, which need torch to be imported first.
#include <cmath>
#include <stdexcept>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "cpu/kernels.h"

namespace py = pybind11;

namespace fastadv {
namespace {

py::dict build_info() {
  py::dict info;
  info["version"] = FASTADV_VERSION;
  info["compiler"] = FASTADV_COMPILER;
  info["torch_headers"] = FASTADV_TORCH_VERSION;
  info["cuda"] = FASTADV_CUDA_VERSION;        // empty: built without CUDA
  info["cuda_archs"] = FASTADV_CUDA_ARCHS;    // as CMake names them
  info["cpu_isas"] = FASTADV_CPU_ISAS;
  info["cpu_isa"] = cpu::instruction_set().name;
  return info;
}

py::array_t<float> sample_eps(int64_t n, double sigma, double upper, int64_t seed, int64_t offset) {
  if (n < 0 || offset < 0) throw py::value_error("n and offset must be zero or more");
  if (!(sigma > 0 && std::isfinite(sigma) && upper > 0 && std::isfinite(upper)))
    throw py::value_error("sigma and upper must be positive and finite");
  py::array_t<float> eps(n);  // [N]
  const EpsSample args{eps.mutable_data(), DType::float32, n, sigma, upper,
                       {static_cast<uint64_t>(seed), static_cast<uint64_t>(offset)}};
  py::gil_scoped_release unlocked;
  cpu::kernels().truncated_normal(args, 0, n);
  return eps;
}

}  // namespace
}  // namespace fastadv

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled operators of fastadv.";
  m.def("build_info", &fastadv::build_info, "Versions, instruction sets and CUDA architectures of this build.");
  m.def("sample_eps", &fastadv::sample_eps, py::arg("n"), py::arg("sigma") = 8.0, py::arg("upper") = 16.0, py::kw_only(),
        py::arg("seed"), py::arg("offset") = 0,
        "NumPy array [N] of |N(0, sigma)| truncated to [0, upper]: the numbers that fastadv.ops.sample_eps draws.");
}
