// The Python module fastadv._C: what was built, and the sampler of eps for NumPy users. Importing it registers the
// operators, which need torch to be imported first.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <stdexcept>

#include "cpu/kernels.h"
#include "math/philox.h"
#include "math/truncated_normal.h"

namespace py = pybind11;

namespace fastadv {
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

py::array_t<float> sample_eps(int64_t n, double sigma, double upper, int64_t seed, int64_t offset) {
  if (n < 0 || offset < 0) throw py::value_error("n and offset must be zero or more");
  if (!(sigma > 0 && std::isfinite(sigma) && upper > 0 && std::isfinite(upper)))
    throw py::value_error("sigma and upper must be positive and finite");
  py::array_t<float> eps(n);  // [N]
  const EpsSample args{eps.mutable_data(),
                       DType::float32,
                       n,
                       sigma,
                       upper,
                       {static_cast<uint64_t>(seed), static_cast<uint64_t>(offset), nullptr}};
  py::gil_scoped_release unlocked;
  cpu::kernels().truncated_normal(args, 0, n);
  return eps;
}

py::tuple philox_words(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t key) {
  const Philox words = philox(c0, c1, c2, c3, key);
  return py::make_tuple(words.word[0], words.word[1], words.word[2], words.word[3]);
}

float half_normal_quantile(uint32_t magnitude, double bound) {
  return quantile(half_normal(bound), to_fraction(magnitude << 1));
}

}  // namespace
}  // namespace fastadv

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled operators of fastadv.";
  m.def("build_info", &fastadv::build_info, "Versions, instruction sets and CUDA architectures of this build.");
  m.def(
      "cpu_isa", [] { return fastadv::cpu::instruction_set().name; }, "The instruction set of the CPU kernels in use.");
  m.def("sample_eps", &fastadv::sample_eps, py::arg("n"), py::arg("sigma") = 8.0, py::arg("upper") = 16.0,
        py::kw_only(), py::arg("seed"), py::arg("offset") = 0,
        "NumPy array [N] of |N(0, sigma)| truncated to [0, upper]: the numbers that fastadv.ops.sample_eps draws.");
  m.def("philox", &fastadv::philox_words, "Philox 4x32-10: four counter words and a 64-bit key, to four random words.");
  m.def("half_normal_quantile", &fastadv::half_normal_quantile, py::arg("magnitude"), py::arg("bound"),
        "Quantile (magnitude + 1/2) / 2^31 of |N(0, 1)| truncated to [0, bound], as the kernels compute it.");
}
