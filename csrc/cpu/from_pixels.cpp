// from_pixels_ on the CPU: examples over threads.
#include <torch/csrc/stable/library.h>

#include "steps.h"

namespace fastadv::cpu {
namespace {

using torch::stable::Tensor;
using Numbers = std::vector<double>;

// images, pixels [N, C, ...]; mirrored [N]; mean, std, lower, upper [1] or [C].
void from_pixels_(Tensor images, const Tensor& pixels, std::optional<Tensor> mirrored, const Numbers& mean,
                  const Numbers& std, const Numbers& lower, const Numbers& upper) {
  const FromPixels args = checks::from_pixels("from_pixels_", images, pixels, mirrored, mean, std, lower, upper);
  // One example is one thread's: a loader's threads, which make one each, do not wake others.
  torch::stable::parallel_for(0, args.batch.examples, 1 + kGrain / (1 + args.batch.channels * args.batch.plane),
                              [&](int64_t begin, int64_t end) { kernels().from_pixels(args, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastadv, CPU, m) { m.impl("from_pixels_", TORCH_BOX(&from_pixels_)); }

}  // namespace fastadv::cpu
