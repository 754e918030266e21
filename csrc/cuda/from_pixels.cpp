// from_pixels on CUDA: check, guard, launch.
#include <torch/csrc/stable/library.h>

#include "guard.h"
#include "launchers.h"

namespace fastadv::cuda {
namespace {

using torch::stable::Tensor;
using Numbers = std::vector<double>;

// pixels [N, C, ...]; mirrored [N]; mean, std, lower, upper [1] or [C]; returns images [N, C, ...].
Tensor from_pixels_op(const Tensor& pixels, std::optional<Tensor> mirrored, torch::headeronly::ScalarType dtype,
                      const Numbers& mean, const Numbers& std, const Numbers& lower, const Numbers& upper) {
  const char* op = "from_pixels";
  const auto [args, images] = checks::from_pixels(op, pixels, mirrored, dtype, mean, std, lower, upper);
  on_device_of(op, pixels, [&args = args](cudaStream_t stream) { return from_pixels(args, stream); });
  return images;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastadv, FASTADV_CUDA_KEY, m) { m.impl("from_pixels", TORCH_BOX(&from_pixels_op)); }

}  // namespace fastadv::cuda
