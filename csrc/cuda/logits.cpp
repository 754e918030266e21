// target_grad and mixed_cross_entropy on CUDA: check, guard, launch.
#include <torch/csrc/stable/library.h>

#include "guard.h"
#include "launchers.h"

namespace fastadv::cuda {
namespace {

using torch::stable::Tensor;

// Throughout: logits, dlogits [N, K]; labels, target, exponent, row_loss [N]; from [2].

std::tuple<Tensor, Tensor> target_grad_op(const Tensor& logits, const std::string& rule, std::optional<Tensor> labels,
                                          double label_smoothing, int64_t seed, int64_t offset,
                                          std::optional<Tensor> from) {
  const char* op = "target_grad";
  check_device(op);
  const auto [args, target, dlogits] =
      checks::target_grad(op, logits, rule, labels, label_smoothing, seed, offset, from);
  on_device_of(op, logits, [&args = args](cudaStream_t stream) { return target_grad(args, stream); });
  return {target, dlogits};
}

std::tuple<Tensor, Tensor, Tensor> scaled_target_grad_op(const Tensor& logits, const std::string& rule,
                                                         std::optional<Tensor> labels, double label_smoothing,
                                                         int64_t seed, int64_t offset, std::optional<Tensor> from) {
  const char* op = "scaled_target_grad";
  check_device(op);
  auto [args, target, dlogits] = checks::target_grad(op, logits, rule, labels, label_smoothing, seed, offset, from);
  Tensor exponent = checks::exponents(logits);
  args.exponent = static_cast<int32_t*>(exponent.data_ptr());
  on_device_of(op, logits, [&args = args](cudaStream_t stream) { return target_grad(args, stream); });
  return {target, dlogits, exponent};
}

std::tuple<Tensor, Tensor> mixed_cross_entropy_op(const Tensor& logits, const Tensor& labels, int64_t k, double lambda,
                                                  double label_smoothing) {
  const char* op = "mixed_cross_entropy";
  check_device(op);
  const auto [args, row_loss, dlogits] = checks::mixed_cross_entropy(op, logits, labels, k, lambda, label_smoothing);
  Tensor loss = torch::stable::new_empty(logits, {}, checks::compute_dtype(args.dtype));  // scalar
  on_device_of(op, logits, [&args = args, &loss](cudaStream_t stream) {
    return mixed_cross_entropy(args, loss.data_ptr(), stream);
  });
  return {loss, dlogits};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastadv, FASTADV_CUDA_KEY, m) {
  m.impl("target_grad", TORCH_BOX(&target_grad_op));
  m.impl("scaled_target_grad", TORCH_BOX(&scaled_target_grad_op));
  m.impl("mixed_cross_entropy", TORCH_BOX(&mixed_cross_entropy_op));
}

}  // namespace fastadv::cuda
