// truncated_normal_ on the CPU, and sample_eps for every device: an empty tensor, filled.
#include <torch/csrc/stable/library.h>

#include <array>

#include "../checks.h"
#include "kernels.h"

namespace fastadv::cpu {
namespace {

using torch::stable::Tensor;

constexpr int64_t kGrain = 2048;  // draws a thread is worth waking for

void truncated_normal_(Tensor eps, double sigma, double upper, int64_t seed, int64_t offset) {
  const EpsSample args = checks::eps_sample("truncated_normal_", eps, sigma, upper, seed, offset);
  torch::stable::parallel_for(0, args.examples, kGrain,
                              [&](int64_t begin, int64_t end) { kernels().truncated_normal(args, begin, end); });
}

Tensor sample_eps(int64_t n, double sigma, double upper, int64_t seed, int64_t offset,
                  std::optional<torch::stable::Device> device) {
  checks::value(n >= 0, "sample_eps", "n must be zero or more, got ", n);
  const int64_t size[] = {n};
  Tensor eps = torch::stable::empty({size, 1}, torch::headeronly::ScalarType::Float, std::nullopt, device);
  checks::eps_sample("sample_eps", eps, sigma, upper, seed, offset);  // errors do not cross the dispatcher whole
  using torch::stable::detail::from;
  std::array<StableIValue, 5> stack{from(eps), from(sigma), from(upper), from(seed), from(offset)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("fastadv::truncated_normal_", "", stack.data(), TORCH_ABI_VERSION));
  return eps;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastadv, CPU, m) { m.impl("truncated_normal_", TORCH_BOX(&truncated_normal_)); }
STABLE_TORCH_LIBRARY_IMPL(fastadv, CompositeExplicitAutograd, m) { m.impl("sample_eps", TORCH_BOX(&sample_eps)); }

}  // namespace fastadv::cpu
