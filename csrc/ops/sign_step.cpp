#include "sign_step.h"

#include "../checks/steps.h"
#include "backends.h"

namespace fastadv {

// adv <- clamp_range(clip_{clean, eps}(adv + alpha * sign(grad))). No clean: the first step, where clean is adv.
// alpha and eps are multiplied by alpha_scale [N] and eps_scale [N] if given; all are in pixel values.
// std, lower, upper: one number, or one per channel.
STABLE_TORCH_LIBRARY_FRAGMENT(fastadv, m) {
  m.def(
      "sign_step_(Tensor(a!) adv, Tensor? clean, Tensor grad, float alpha, Tensor? alpha_scale, float eps, "
      "Tensor? eps_scale, float[] std, float[] lower, float[] upper) -> ()");
}

namespace {

void run(Cpu, const char* op, const Tensor&, const Step& step) {
  checks::alpha_and_eps_in_range(op, step);
  torch::stable::parallel_for(0, checks::elements(step.batch), kGrain,
                              [&](int64_t begin, int64_t end) { cpu::sign_step(step, begin, end); });
}

#ifdef FASTADV_WITH_CUDA
void run(Cuda, const char* op, const Tensor& adv, const Step& step) {
  cuda::on_device_of(op, adv, [&](cudaStream_t stream) { return cuda::sign_step(step, stream); });
}
#endif

// adv, clean, grad [N, C, ...]; alpha_scale, eps_scale [N]; std, lower, upper [1] or [C].
template <class Backend>
void sign_step_(Tensor adv, std::optional<Tensor> clean, const Tensor& grad, double alpha,
                std::optional<Tensor> alpha_scale, double eps, std::optional<Tensor> eps_scale, const Numbers& std,
                const Numbers& lower, const Numbers& upper) {
  const char* op = "sign_step_";
  run(Backend{}, op, adv,
      checks::step(op, adv, clean, grad, alpha, alpha_scale, eps, eps_scale, std, lower, upper, false));
}

FASTADV_REGISTER(sign_step_)

}  // namespace
}  // namespace fastadv
