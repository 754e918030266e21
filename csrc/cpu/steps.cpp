// sign_step_ and noise_step_ on the CPU.
#include "steps.h"

#include <torch/csrc/stable/library.h>

namespace fastadv::cpu {
namespace {

using torch::stable::Tensor;
using Numbers = std::vector<double>;

// Throughout: adv, clean, grad [N, C, ...]; alphas, epses [N]; from [2]; std, lower, upper [1] or [C].

void sign_step_(Tensor adv, std::optional<Tensor> clean, const Tensor& grad, double alpha, std::optional<Tensor> alphas,
                double eps, std::optional<Tensor> epses, const Numbers& std, const Numbers& lower,
                const Numbers& upper) {
  const Step step = checks::step("sign_step_", adv, clean, grad, alpha, alphas, eps, epses, std, lower, upper, false);
  amounts_in_range("sign_step_", step);
  torch::stable::parallel_for(0, elements(step.batch), kGrain,
                              [&](int64_t begin, int64_t end) { kernels().sign_step(step, begin, end); });
}

void noise_step_(Tensor adv, std::optional<Tensor> clean, double eps, std::optional<Tensor> epses,
                 const std::string& kind, int64_t seed, int64_t offset, std::optional<Tensor> from, const Numbers& std,
                 const Numbers& lower, const Numbers& upper) {
  const char* op = "noise_step_";
  const NoiseStep step{
      checks::step(op, adv, clean, std::nullopt, 0.0, std::nullopt, eps, epses, std, lower, upper, true),
      checks::noise(op, kind), checks::stream(op, adv, seed, offset, from)};
  amounts_in_range(op, step.step);
  const Batch& batch = step.step.batch;
  torch::stable::parallel_for(0, batch.examples * batch.channels, 1 + kGrain / (1 + batch.plane),
                              [&](int64_t begin, int64_t end) { kernels().noise_step(step, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastadv, CPU, m) {
  m.impl("sign_step_", TORCH_BOX(&sign_step_));
  m.impl("noise_step_", TORCH_BOX(&noise_step_));
}

}  // namespace fastadv::cpu
