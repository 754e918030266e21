// target_grad and mixed_cross_entropy on the CPU: rows over threads.
#include <torch/csrc/stable/library.h>

#include "../checks.h"
#include "kernels.h"

namespace fastadv::cpu {
namespace {

using torch::stable::Tensor;

// Throughout: logits, dlogits [N, K]; labels, target, exponent, row_loss [N]; from [2].

// Rows that make a thread worth waking: an element costs an exponential or two.
int64_t grain(int64_t classes) { return 1 + 8192 / classes; }

void run(const char* op, const TargetGrad& args) {
  checks::labels_in_range(op, args.labels, args.rows, args.classes);
  torch::stable::parallel_for(0, args.rows, grain(args.classes),
                              [&args](int64_t begin, int64_t end) { kernels().target_grad(args, begin, end); });
}

std::tuple<Tensor, Tensor> target_grad(const Tensor& logits, const std::string& rule, std::optional<Tensor> labels,
                                       double label_smoothing, int64_t seed, int64_t offset,
                                       std::optional<Tensor> from) {
  const char* op = "target_grad";
  const auto [args, target, dlogits] =
      checks::target_grad(op, logits, rule, labels, label_smoothing, seed, offset, from);
  run(op, args);
  return {target, dlogits};
}

std::tuple<Tensor, Tensor, Tensor> scaled_target_grad(const Tensor& logits, const std::string& rule,
                                                      std::optional<Tensor> labels, double label_smoothing,
                                                      int64_t seed, int64_t offset, std::optional<Tensor> from) {
  const char* op = "scaled_target_grad";
  auto [args, target, dlogits] = checks::target_grad(op, logits, rule, labels, label_smoothing, seed, offset, from);
  Tensor exponent = checks::exponents(logits);
  args.exponent = static_cast<int32_t*>(exponent.data_ptr());
  run(op, args);
  return {target, dlogits, exponent};
}

template <class F>
void add_up(const Tensor& row_loss, const Tensor& loss) {
  double total = 0;
  for (int64_t i = 0; i < row_loss.numel(); ++i) total += static_cast<const F*>(row_loss.data_ptr())[i];
  *static_cast<F*>(loss.data_ptr()) = static_cast<F>(total);
}

std::tuple<Tensor, Tensor> mixed_cross_entropy(const Tensor& logits, const Tensor& labels, int64_t k, double lambda,
                                               double label_smoothing) {
  const char* op = "mixed_cross_entropy";
  const auto [args, row_loss, dlogits] = checks::mixed_cross_entropy(op, logits, labels, k, lambda, label_smoothing);
  checks::labels_in_range(op, args.labels, args.rows, args.classes);
  torch::stable::parallel_for(0, args.rows, grain(args.classes), [&args = args](int64_t begin, int64_t end) {
    kernels().mixed_cross_entropy(args, begin, end);
  });
  Tensor loss = torch::stable::new_empty(logits, {}, checks::compute_dtype(args.dtype));  // scalar
  if (args.dtype == DType::float64) add_up<double>(row_loss, loss);
  else add_up<float>(row_loss, loss);
  return {loss, dlogits};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastadv, CPU, m) {
  m.impl("target_grad", TORCH_BOX(&target_grad));
  m.impl("scaled_target_grad", TORCH_BOX(&scaled_target_grad));
  m.impl("mixed_cross_entropy", TORCH_BOX(&mixed_cross_entropy));
}

}  // namespace fastadv::cpu
