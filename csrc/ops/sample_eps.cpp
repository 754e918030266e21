// sample_eps, for every device: an empty tensor, filled by the device's truncated_normal_.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <array>

#include "../checks/eps_sample.h"

namespace fastadv {

STABLE_TORCH_LIBRARY_FRAGMENT(fastadv, m) {
  m.def(
      "sample_eps(int n, float sigma, float upper, int seed, int offset, Tensor? rng_state, *, Device? device=None) "
      "-> Tensor");
}

namespace {

using torch::stable::Tensor;

// rng_state [2]; returns eps [N] float32.
Tensor sample_eps(int64_t n, double sigma, double upper, int64_t seed, int64_t offset, std::optional<Tensor> rng_state,
                  std::optional<torch::stable::Device> device) {
  checks::value(n >= 0, "sample_eps", "n must be zero or more, got ", n);
  const int64_t size[] = {n};
  Tensor eps = torch::stable::empty({size, 1}, torch::headeronly::ScalarType::Float, std::nullopt, device);
  // Checked here, too: PyTorch writes an exception that crosses the dispatcher to stderr.
  checks::eps_sample("sample_eps", eps, sigma, upper, seed, offset, rng_state);
  using torch::stable::detail::from;
  std::array<StableIValue, 6> stack{from(eps), from(sigma), from(upper), from(seed), from(offset), from(rng_state)};
  checks::last_failure.clear();
  const AOTITorchError result =
      torch_call_dispatcher("fastadv::truncated_normal_", "", stack.data(), TORCH_ABI_VERSION);
  if (result != TORCH_SUCCESS && !checks::last_failure.empty()) throw std::runtime_error(checks::last_failure);
  TORCH_ERROR_CODE_CHECK(result);
  return eps;
}

STABLE_TORCH_LIBRARY_IMPL(fastadv, CompositeExplicitAutograd, m) { m.impl("sample_eps", TORCH_BOX(&sample_eps)); }

}  // namespace
}  // namespace fastadv
