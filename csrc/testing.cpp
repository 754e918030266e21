// fastadv._C.testing, for tests only: arithmetic of the kernels, and one kernel without its operator.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "math/philox.h"
#include "math/truncated_normal.h"
#include "ops/truncated_normal.h"

namespace py = pybind11;

namespace fastadv {
namespace {

py::tuple philox_words(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t key) {
  const Philox words = philox(c0, c1, c2, c3, key);
  return py::make_tuple(words.word[0], words.word[1], words.word[2], words.word[3]);
}

float half_normal_quantile(uint32_t magnitude, double bound) {
  return quantile(half_normal(bound), to_fraction(magnitude << 1));
}

py::array_t<float> sample_eps(int64_t n, double sigma, double upper, uint64_t seed, uint64_t offset) {
  py::array_t<float> eps(n);  // [N]
  cpu::truncated_normal({eps.mutable_data(), DType::float32, n, sigma, upper, {seed, offset, nullptr}}, 0, n);
  return eps;
}

}  // namespace

void add_testing(py::module_ m) {
  m.def("philox", &philox_words, "Philox 4x32-10: four counter words and a 64-bit key, to four random words.");
  m.def("half_normal_quantile", &half_normal_quantile, py::arg("magnitude"), py::arg("bound"),
        "Quantile (magnitude + 1/2) / 2^31 of |N(0, 1)| truncated to [0, bound], as the kernels compute it.");
  m.def("sample_eps", &sample_eps, py::arg("n"), py::arg("sigma"), py::arg("upper"), py::arg("seed"), py::arg("offset"),
        "NumPy array [N] by the CPU kernel of truncated_normal_, whichever back end the operators have.");
}

}  // namespace fastadv
