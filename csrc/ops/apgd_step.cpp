#include "apgd_step.h"

#include "norms.h"

namespace fastadv {

// previous, adv <- adv, a step of APGD with momentum from there; norm is linf or l2, of the ball and of the step. The
// other arguments are as in sign_step_.
STABLE_TORCH_LIBRARY_FRAGMENT(fastadv, m) {
  m.def(
      "apgd_step_(Tensor(a!) adv, Tensor(b!) previous, Tensor clean, Tensor grad, float alpha, Tensor? alpha_scale, "
      "float eps, Tensor? eps_scale, str norm, float momentum, float[] std, float[] lower, float[] upper) -> ()");
}

namespace checks {
namespace {

// adv, previous, clean, grad [N, C, ...]; alpha_scale, eps_scale [N].
ApgdStep apgd_step(const char* op, const Tensor& adv, const Tensor& previous, const Tensor& clean, const Tensor& grad,
                   double alpha, const std::optional<Tensor>& alpha_scale, double eps,
                   const std::optional<Tensor>& eps_scale, double momentum, const Numbers& std, const Numbers& lower,
                   const Numbers& upper) {
  Step step = checks::step(op, adv, clean, grad, alpha, alpha_scale, eps, eps_scale, std, lower, upper, false);
  like(op, "previous", previous, "adv", adv, channels_last(op, "adv", adv));
  apart(op, "previous", previous, "clean", clean);
  apart(op, "previous", previous, "grad", grad);
  value(momentum >= 0 && momentum <= 1, op, "momentum must be in [0, 1], got ", momentum);
  step.previous = previous.data_ptr();
  return {step, momentum};
}

}  // namespace
}  // namespace checks

namespace {

void run(Cpu, const char* op, const Tensor&, const ApgdStep& args, Norm norm) {
  const Step& step = args.step;
  checks::alpha_and_eps_in_range(op, step);
  const int64_t elements = checks::elements(step.batch);
  if (elements == 0) return;
  if (norm == Norm::linf) {
    torch::stable::parallel_for(0, elements, kGrain,
                                [&](int64_t begin, int64_t end) { cpu::apgd_sign_step(args, begin, end); });
    return;
  }
  const std::vector<double> inverse = inverse_length(step, norm);        // [N]
  const std::vector<double> shrink_z = shrink_unit_step(step, inverse);  // [N]
  const std::vector<double> shrink = shrink_from_squares(step, [&](double* partial, int64_t begin, int64_t end) {
    cpu::apgd_distance_squares(args, inverse.data(), shrink_z.data(), partial, begin, end);
  });  // [N]
  torch::stable::parallel_for(0, elements, kGrain, [&](int64_t begin, int64_t end) {
    cpu::apgd_unit_step(args, inverse.data(), shrink_z.data(), shrink.data(), begin, end);
  });
}

#ifdef FASTADV_WITH_CUDA
void run(Cuda, const char* op, const Tensor& adv, const ApgdStep& args, Norm norm) {
  std::optional<Tensor> workspace;
  if (norm == Norm::l2)
    workspace =
        torch::stable::new_empty(adv, {cuda::apgd_workspace(args.step.batch)}, torch::headeronly::ScalarType::Double);
  double* norms = norm == Norm::l2 ? static_cast<double*>(workspace->data_ptr()) : nullptr;
  cuda::on_device_of(op, adv, [&](cudaStream_t stream) { return cuda::apgd_step(args, norm, norms, stream); });
}
#endif

// adv, previous, clean, grad [N, C, ...]; alpha_scale, eps_scale [N]; std, lower, upper [1] or [C].
template <class Backend>
void apgd_step_(Tensor adv, Tensor previous, const Tensor& clean, const Tensor& grad, double alpha,
                std::optional<Tensor> alpha_scale, double eps, std::optional<Tensor> eps_scale,
                const std::string& norm_name, double momentum, const Numbers& std, const Numbers& lower,
                const Numbers& upper) {
  const char* op = "apgd_step_";
  check_device(Backend{}, op);
  const ApgdStep args = checks::apgd_step(op, adv, previous, clean, grad, alpha, alpha_scale, eps, eps_scale, momentum,
                                          std, lower, upper);
  run(Backend{}, op, adv, args, norm_of(op, norm_name));
}

FASTADV_REGISTER(apgd_step_)

}  // namespace
}  // namespace fastadv
