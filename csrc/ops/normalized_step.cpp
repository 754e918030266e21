#include "normalized_step.h"

#include "norms.h"

namespace fastadv {

// adv <- a step along grad / ||grad|| per example, kept in the ball and in the pixel range; norm is l2 (and the ball
// with it) or linf. The other arguments are as in sign_step_.
STABLE_TORCH_LIBRARY_FRAGMENT(fastadv, m) {
  m.def(
      "normalized_step_(Tensor(a!) adv, Tensor? clean, Tensor grad, float alpha, Tensor? alpha_scale, float eps, "
      "Tensor? eps_scale, str norm, float[] std, float[] lower, float[] upper) -> ()");
}

namespace {

// On the CPU: the gradient's norm, for L2 the distance that the step would reach, then the step.

std::vector<double> shrink(const Step& step, const std::vector<double>& inverse_length) {  // [N]
  if (step.clean != nullptr) return shrink_unit_step(step, inverse_length);
  std::vector<double> distance(step.batch.examples);  // of the first step: alpha times a unit vector
  for (size_t n = 0; n < distance.size(); ++n) distance[n] = std::abs(checks::value_of(step.alpha, step.dtype, n));
  return shrink_to_ball(step, distance);
}

void run(Cpu, const char* op, const Tensor&, const Step& step, Norm norm) {
  checks::alpha_and_eps_in_range(op, step);
  const int64_t elements = checks::elements(step.batch);
  if (elements == 0) return;
  const std::vector<double> inverse = inverse_length(step, norm);                                       // [N]
  const std::vector<double> factor = norm == Norm::l2 ? shrink(step, inverse) : std::vector<double>();  // [N]
  torch::stable::parallel_for(0, elements, kGrain, [&](int64_t begin, int64_t end) {
    cpu::normalized_step(step, norm, inverse.data(), factor.data(), begin, end);
  });
}

#ifdef FASTADV_WITH_CUDA
void run(Cuda, const char* op, const Tensor& adv, const Step& step, Norm norm) {
  const Tensor workspace =
      torch::stable::new_empty(adv, {cuda::normalized_workspace(step.batch)}, torch::headeronly::ScalarType::Double);
  cuda::on_device_of(op, adv, [&](cudaStream_t stream) {
    return cuda::normalized_step(step, norm, static_cast<double*>(workspace.data_ptr()), stream);
  });
}
#endif

// adv, clean, grad [N, C, ...]; alpha_scale, eps_scale [N]; std, lower, upper [1] or [C].
template <class Backend>
void normalized_step_(Tensor adv, std::optional<Tensor> clean, const Tensor& grad, double alpha,
                      std::optional<Tensor> alpha_scale, double eps, std::optional<Tensor> eps_scale,
                      const std::string& norm_name, const Numbers& std, const Numbers& lower, const Numbers& upper) {
  const char* op = "normalized_step_";
  check_device(Backend{}, op);
  const Step step = checks::step(op, adv, clean, grad, alpha, alpha_scale, eps, eps_scale, std, lower, upper, false);
  run(Backend{}, op, adv, step, norm_of(op, norm_name));
}

FASTADV_REGISTER(normalized_step_)

}  // namespace
}  // namespace fastadv
