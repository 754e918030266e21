// truncated_normal_ on the CPU.
#include <torch/csrc/stable/library.h>

#include "../checks.h"
#include "kernels.h"

namespace fastadv::cpu {
namespace {

using torch::stable::Tensor;

constexpr int64_t kGrain = 2048;  // draws a thread is worth waking for

// eps [N]; from [2].
void truncated_normal_(Tensor eps, double sigma, double upper, int64_t seed, int64_t offset,
                       std::optional<Tensor> from) {
  const EpsSample args = checks::eps_sample("truncated_normal_", eps, sigma, upper, seed, offset, from);
  torch::stable::parallel_for(0, args.examples, kGrain,
                              [&](int64_t begin, int64_t end) { kernels().truncated_normal(args, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastadv, CPU, m) { m.impl("truncated_normal_", TORCH_BOX(&truncated_normal_)); }

}  // namespace fastadv::cpu
