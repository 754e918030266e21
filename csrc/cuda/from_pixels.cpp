// from_pixels_ on CUDA: check, guard, launch.
#include <torch/csrc/stable/library.h>

#include "guard.h"
#include "launchers.h"

namespace fastadv::cuda {
namespace {

using torch::stable::Tensor;
using Numbers = std::vector<double>;

// images, pixels [N, C, ...]; mirrored [N]; mean, std, lower, upper [1] or [C].
void from_pixels_(Tensor images, const Tensor& pixels, std::optional<Tensor> mirrored, const Numbers& mean,
                  const Numbers& std, const Numbers& lower, const Numbers& upper) {
  const char* op = "from_pixels_";
  const FromPixels args = checks::from_pixels(op, images, pixels, mirrored, mean, std, lower, upper);
  on_device_of(op, images, [&](cudaStream_t stream) { return from_pixels(args, stream); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastadv, FASTADV_CUDA_KEY, m) { m.impl("from_pixels_", TORCH_BOX(&from_pixels_)); }

}  // namespace fastadv::cuda
