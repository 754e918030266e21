// sign_step_, normalized_step_, noise_step_ and truncated_normal_ on CUDA: check, guard, launch.
#include <torch/csrc/stable/library.h>

#include "guard.h"
#include "launchers.h"

namespace fastadv::cuda {
namespace {

using torch::stable::Tensor;
using Numbers = std::vector<double>;

// Throughout: adv, clean, grad [N, C, ...]; alphas, epses [N]; from [2]; std, lower, upper [1] or [C].

void sign_step_(Tensor adv, std::optional<Tensor> clean, const Tensor& grad, double alpha, std::optional<Tensor> alphas,
                double eps, std::optional<Tensor> epses, const Numbers& std, const Numbers& lower,
                const Numbers& upper) {
  const char* op = "sign_step_";
  const Step step = checks::step(op, adv, clean, grad, alpha, alphas, eps, epses, std, lower, upper, false);
  on_device_of(op, adv, [&](cudaStream_t stream) { return sign_step(step, stream); });
}

void normalized_step_(Tensor adv, std::optional<Tensor> clean, const Tensor& grad, double alpha,
                      std::optional<Tensor> alphas, double eps, std::optional<Tensor> epses,
                      const std::string& norm_name, const Numbers& std, const Numbers& lower, const Numbers& upper) {
  const char* op = "normalized_step_";
  check_device(op);
  const Step step = checks::step(op, adv, clean, grad, alpha, alphas, eps, epses, std, lower, upper, false);
  const Norm norm = checks::norm(op, norm_name);
  Tensor workspace =
      torch::stable::new_empty(adv, {normalized_workspace(step.batch)}, torch::headeronly::ScalarType::Double);
  on_device_of(op, adv, [&](cudaStream_t stream) {
    return normalized_step(step, norm, static_cast<double*>(workspace.data_ptr()), stream);
  });
}

void noise_step_(Tensor adv, std::optional<Tensor> clean, double eps, std::optional<Tensor> epses,
                 const std::string& kind, int64_t seed, int64_t offset, std::optional<Tensor> from, const Numbers& std,
                 const Numbers& lower, const Numbers& upper) {
  const char* op = "noise_step_";
  const NoiseStep step{
      checks::step(op, adv, clean, std::nullopt, 0.0, std::nullopt, eps, epses, std, lower, upper, true),
      checks::noise(op, kind), checks::stream(op, adv, seed, offset, from)};
  on_device_of(op, adv, [&](cudaStream_t stream) { return noise_step(step, stream); });
}

void truncated_normal_(Tensor eps, double sigma, double upper, int64_t seed, int64_t offset,
                       std::optional<Tensor> from) {
  const char* op = "truncated_normal_";
  const EpsSample sample = checks::eps_sample(op, eps, sigma, upper, seed, offset, from);
  on_device_of(op, eps, [&](cudaStream_t stream) { return truncated_normal(sample, stream); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastadv, FASTADV_CUDA_KEY, m) {
  m.impl("sign_step_", TORCH_BOX(&sign_step_));
  m.impl("normalized_step_", TORCH_BOX(&normalized_step_));
  m.impl("noise_step_", TORCH_BOX(&noise_step_));
  m.impl("truncated_normal_", TORCH_BOX(&truncated_normal_));
}

}  // namespace fastadv::cuda
