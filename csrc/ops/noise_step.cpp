#include "noise_step.h"

#include "../checks/rng_state.h"
#include "../checks/steps.h"
#include "backends.h"

namespace fastadv {

// adv <- clamp_range(clean + noise); kind is sign, truncated_normal, normal or uniform, made in the kernel. No
// clean: it is adv. Random numbers begin at (seed, offset). A captured CUDA graph or a compiled function, which needs
// new ones in each call, passes rng_state [2], int64 on the device: a seed, and a number to which offset is added.
STABLE_TORCH_LIBRARY_FRAGMENT(fastadv, m) {
  m.def(
      "noise_step_(Tensor(a!) adv, Tensor? clean, float eps, Tensor? eps_scale, str kind, int seed, int offset, "
      "Tensor? rng_state, float[] std, float[] lower, float[] upper) -> ()");
}

namespace {

Noise noise(const char* op, const std::string& text) {
  if (text == "sign") return Noise::sign;
  if (text == "truncated_normal") return Noise::truncated_normal;
  if (text == "normal") return Noise::normal;
  checks::value(text == "uniform", op, "kind must be 'sign', 'truncated_normal', 'normal' or 'uniform', got '", text,
                "'");
  return Noise::uniform;
}

void run(Cpu, const char* op, const Tensor&, const NoiseStep& step) {
  checks::alpha_and_eps_in_range(op, step.step);
  const Batch& batch = step.step.batch;
  torch::stable::parallel_for(0, batch.examples * batch.channels, 1 + kGrain / (1 + batch.plane),
                              [&](int64_t begin, int64_t end) { cpu::noise_step(step, begin, end); });
}

#ifdef FASTADV_WITH_CUDA
void run(Cuda, const char* op, const Tensor& adv, const NoiseStep& step) {
  cuda::on_device_of(op, adv, [&](cudaStream_t stream) { return cuda::noise_step(step, stream); });
}
#endif

// adv, clean [N, C, ...]; eps_scale [N]; rng_state [2]; std, lower, upper [1] or [C].
template <class Backend>
void noise_step_(Tensor adv, std::optional<Tensor> clean, double eps, std::optional<Tensor> eps_scale,
                 const std::string& kind, int64_t seed, int64_t offset, std::optional<Tensor> rng_state,
                 const Numbers& std, const Numbers& lower, const Numbers& upper) {
  const char* op = "noise_step_";
  const NoiseStep step{
      checks::step(op, adv, clean, std::nullopt, 0.0, std::nullopt, eps, eps_scale, std, lower, upper, true),
      noise(op, kind), checks::rng_state_of(op, adv, seed, offset, rng_state)};
  run(Backend{}, op, adv, step);
}

FASTADV_REGISTER(noise_step_)

}  // namespace
}  // namespace fastadv
