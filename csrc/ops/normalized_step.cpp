#include "normalized_step.h"

#include <cmath>

#include "../checks/steps.h"
#include "backends.h"

namespace fastadv {

// adv <- a step along grad / ||grad|| per example, kept in the ball and in the pixel range; norm is l2 (and the ball
// with it) or linf. The other arguments are as in sign_step_.
STABLE_TORCH_LIBRARY_FRAGMENT(fastadv, m) {
  m.def(
      "normalized_step_(Tensor(a!) adv, Tensor? clean, Tensor grad, float alpha, Tensor? alpha_scale, float eps, "
      "Tensor? eps_scale, str norm, float[] std, float[] lower, float[] upper) -> ()");
}

namespace {

Norm norm(const char* op, const std::string& text) {
  if (text == "l2") return Norm::l2;
  checks::value(text == "linf", op, "norm must be 'l2' or 'linf', got '", text, "'");
  return Norm::linf;
}

// --- on the CPU: the gradient's norm, for L2 the distance that the step would reach, then the step -------------------

// Per-example totals of chunked partial sums: added in order, so that the threads do not show.
template <class Reduce, class Join>
std::vector<double> over_examples(const Batch& batch, Reduce reduce, Join join) {
  const int64_t chunks = chunks_per_example(batch);
  std::vector<double> partial(batch.examples * chunks), total(batch.examples);
  torch::stable::parallel_for(0, batch.examples * chunks, 2,
                              [&](int64_t begin, int64_t end) { reduce(partial.data(), begin, end); });
  for (int64_t i = 0; i < batch.examples * chunks; ++i) total[i / chunks] = join(total[i / chunks], partial[i]);
  return total;
}

double larger(double a, double b) { return a > b ? a : b; }
double sum(double a, double b) { return a + b; }

// The inverse of the norm of each example's gradient; 0 where it is zero.
std::vector<double> inverse_length(const Step& step, Norm norm) {
  std::vector<double> scale(step.batch.examples, 1.0), inverse(step.batch.examples, 1.0);
  // Squares of float64 can leave the range of double; those of the narrower types cannot.
  if (norm == Norm::linf || step.dtype == DType::float64) {
    scale = over_examples(
        step.batch, [&](double* partial, int64_t begin, int64_t end) { cpu::gradient_max(step, partial, begin, end); },
        larger);
    for (size_t n = 0; n < scale.size(); ++n) inverse[n] = inverse_or_zero(scale[n]);
  }
  if (norm == Norm::linf) return inverse;
  const std::vector<double> squares = over_examples(
      step.batch,
      [&](double* partial, int64_t begin, int64_t end) {
        cpu::gradient_squares(step, inverse.data(), partial, begin, end);
      },
      sum);
  for (size_t n = 0; n < squares.size(); ++n) inverse[n] = inverse_or_zero(scale[n] * std::sqrt(squares[n]));
  return inverse;
}

// The factor that brings each example's perturbation back onto the L2 ball; 1 inside it.
std::vector<double> shrink_to_ball(const Step& step, const std::vector<double>& inverse_length) {
  std::vector<double> distance(step.batch.examples);
  if (step.clean == nullptr) {  // the first step: alpha times a unit vector
    for (size_t n = 0; n < distance.size(); ++n) distance[n] = std::abs(checks::value_of(step.alpha, step.dtype, n));
  } else {
    distance = over_examples(
        step.batch,
        [&](double* partial, int64_t begin, int64_t end) {
          cpu::distance_squares(step, inverse_length.data(), partial, begin, end);
        },
        sum);
    for (double& value : distance) value = std::sqrt(value);
  }
  for (size_t n = 0; n < distance.size(); ++n)
    distance[n] = shrink_onto_ball(distance[n], checks::value_of(step.eps, step.dtype, n));
  return distance;
}

void run(Cpu, const char* op, const Tensor&, const Step& step, Norm norm) {
  checks::alpha_and_eps_in_range(op, step);
  const int64_t elements = checks::elements(step.batch);
  if (elements == 0) return;
  const std::vector<double> inverse = inverse_length(step, norm);                                               // [N]
  const std::vector<double> shrink = norm == Norm::l2 ? shrink_to_ball(step, inverse) : std::vector<double>();  // [N]
  torch::stable::parallel_for(0, elements, kGrain, [&](int64_t begin, int64_t end) {
    cpu::normalized_step(step, norm, inverse.data(), shrink.data(), begin, end);
  });
}

// ---------------------------------------------------------------------------------------------------------------------

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
  run(Backend{}, op, adv, step, norm(op, norm_name));
}

FASTADV_REGISTER(normalized_step_)

}  // namespace
}  // namespace fastadv
