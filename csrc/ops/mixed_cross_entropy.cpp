#include "mixed_cross_entropy.h"

#include <cmath>

#include "../checks/logits.h"
#include "backends.h"
#include "total_loss.h"

namespace fastadv {

// The paper's loss over m rows, the first k of them adversarial, and d(loss) / d logits.
STABLE_TORCH_LIBRARY_FRAGMENT(fastadv, m) {
  m.def(
      "mixed_cross_entropy(Tensor logits, Tensor labels, int k, float lambda_, float label_smoothing) "
      "-> (Tensor loss, Tensor dlogits)");
}

namespace {

struct Call {
  MixedCrossEntropy args;
  Tensor row_loss, dlogits;  // [m], [m, K], both of the compute dtype
};

}  // namespace

namespace checks {
namespace {

// logits [m, K]; labels [m].
Call mixed_cross_entropy(const char* op, const Tensor& logits, const Tensor& labels, int64_t k, double lambda,
                         double label_smoothing) {
  checks::logits(op, logits);
  const DType dtype = floating(op, "logits", logits);
  checks::labels(op, labels, logits);
  checks::label_smoothing(op, label_smoothing);
  const int64_t rows = logits.size(0), classes = logits.size(1);
  value(k >= 0 && k <= rows, op, "k must be in [0, m] = [0, ", rows, "], got ", k);
  value(lambda >= 0 && std::isfinite(lambda), op, "lambda_ must be zero or more and finite, got ", lambda);
  const double weight = static_cast<double>(rows - k) + lambda * static_cast<double>(k);
  value(weight > 0, op, "the loss has no weight: m = ", rows, ", k = ", k, ", lambda_ = ", lambda);
  Tensor row_loss = torch::stable::new_empty(logits, {rows}, compute_dtype(dtype));
  Tensor dlogits = torch::stable::new_empty(logits, {rows, classes}, compute_dtype(dtype));
  return {{logits.data_ptr(), static_cast<const int64_t*>(labels.data_ptr()), dlogits.data_ptr(), row_loss.data_ptr(),
           dtype, rows, classes, k, 1.0 / weight, lambda / weight, label_smoothing},
          row_loss,
          dlogits};
}

}  // namespace
}  // namespace checks

namespace {

// loss: a scalar, to be written.
void run(Cpu, const char* op, const Call& call, const Tensor& loss) {
  const MixedCrossEntropy& args = call.args;
  checks::labels_in_range(op, args.labels, args.rows, args.classes);
  torch::stable::parallel_for(0, args.rows, row_grain(args.classes),
                              [&](int64_t begin, int64_t end) { cpu::mixed_cross_entropy(args, begin, end); });
  add_up(args.dtype, call.row_loss, loss);
}

#ifdef FASTADV_WITH_CUDA
void run(Cuda, const char* op, const Call& call, const Tensor& loss) {
  cuda::on_device_of(
      op, loss, [&](cudaStream_t stream) { return cuda::mixed_cross_entropy(call.args, loss.data_ptr(), stream); });
}
#endif

// logits, dlogits [m, K]; labels [m].
template <class Backend>
std::tuple<Tensor, Tensor> mixed_cross_entropy(const Tensor& logits, const Tensor& labels, int64_t k, double lambda,
                                               double label_smoothing) {
  const char* op = "mixed_cross_entropy";
  check_device(Backend{}, op);
  const Call call = checks::mixed_cross_entropy(op, logits, labels, k, lambda, label_smoothing);
  const Tensor loss = torch::stable::new_empty(logits, {}, checks::compute_dtype(call.args.dtype));  // scalar
  run(Backend{}, op, call, loss);
  return {loss, call.dlogits};
}

FASTADV_REGISTER(mixed_cross_entropy)

}  // namespace
}  // namespace fastadv
