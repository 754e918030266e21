#include "keep_best.h"

#include "../checks/steps.h"
#include "backends.h"

namespace fastadv {

// Examples of candidate that are better [N] are copied to best, and those of grad to best_grad, if both are given.
STABLE_TORCH_LIBRARY_FRAGMENT(fastadv, m) {
  m.def("keep_best_(Tensor(a!) best, Tensor(b!)? best_grad, Tensor candidate, Tensor? grad, Tensor better) -> ()");
}

namespace checks {
namespace {

// best, best_grad, candidate, grad [N, ...]; better [N].
KeepBest keep_best(const char* op, const Tensor& best, const std::optional<Tensor>& best_grad, const Tensor& candidate,
                   const std::optional<Tensor>& grad, const Tensor& better) {
  const DType dtype = floating(op, "best", best);
  const bool last = channels_last(op, "best", best);
  like(op, "candidate", candidate, "best", best, last);
  value(best_grad.has_value() == grad.has_value(), op, "best_grad and grad must both be given, or neither");
  type(better.scalar_type() == ScalarType::Bool, op, "better must be bool, got ", name(better.scalar_type()));
  same_device(op, "better", better, best);
  value(better.dim() == 1 && better.size(0) == best.size(0) && better.is_contiguous(), op,
        "better must be a contiguous tensor of shape [", best.size(0), "], got ", shape(better));
  const int64_t examples = best.size(0);
  KeepBest result{{best.data_ptr(), nullptr},
                  {candidate.data_ptr(), nullptr},
                  1,
                  static_cast<const bool*>(better.data_ptr()),
                  dtype,
                  examples,
                  examples == 0 ? 0 : best.numel() / examples};
  if (!grad.has_value()) return result;
  like(op, "best_grad", *best_grad, "best", best, last);
  like(op, "grad", *grad, "best", best, last);
  apart(op, "best_grad", *best_grad, "candidate", candidate);
  apart(op, "best_grad", *best_grad, "grad", *grad);
  result.to[1] = best_grad->data_ptr();
  result.from[1] = grad->data_ptr();
  result.pairs = 2;
  return result;
}

}  // namespace
}  // namespace checks

namespace {

void run(Cpu, const char*, const Tensor&, const KeepBest& args) {
  torch::stable::parallel_for(0, args.examples * args.elements, kGrain,
                              [&](int64_t begin, int64_t end) { cpu::keep_best(args, begin, end); });
}

#ifdef FASTADV_WITH_CUDA
void run(Cuda, const char* op, const Tensor& best, const KeepBest& args) {
  cuda::on_device_of(op, best, [&](cudaStream_t stream) { return cuda::keep_best(args, stream); });
}
#endif

// best, best_grad, candidate, grad [N, ...]; better [N].
template <class Backend>
void keep_best_(Tensor best, std::optional<Tensor> best_grad, const Tensor& candidate, std::optional<Tensor> grad,
                const Tensor& better) {
  const char* op = "keep_best_";
  check_device(Backend{}, op);
  run(Backend{}, op, best, checks::keep_best(op, best, best_grad, candidate, grad, better));
}

FASTADV_REGISTER(keep_best_)

}  // namespace
}  // namespace fastadv
