#include "trades_loss.h"

#include <cmath>

#include "../checks/logits.h"
#include "backends.h"
#include "total_loss.h"

namespace fastadv {

// The mean over m images of the clean cross-entropy plus beta KL(softmax(logits) || softmax(adv_logits)), and its
// derivatives.
STABLE_TORCH_LIBRARY_FRAGMENT(fastadv, m) {
  m.def(
      "trades_loss(Tensor logits, Tensor adv_logits, Tensor labels, float beta, float label_smoothing) "
      "-> (Tensor loss, Tensor dlogits, Tensor dadv_logits)");
}

namespace {

struct Call {
  TradesLoss args;
  Tensor row_loss, dlogits, dadv_logits;  // [m], [m, K], [m, K], all of the compute dtype
};

}  // namespace

namespace checks {
namespace {

// logits, adv_logits [m, K]; labels [m].
Call trades_loss(const char* op, const Tensor& logits, const Tensor& adv_logits, const Tensor& labels, double beta,
                 double label_smoothing) {
  checks::logits(op, logits);
  const DType dtype = floating(op, "logits", logits);
  checks::same_logits(op, "adv_logits", adv_logits, logits);
  checks::labels(op, labels, logits);
  checks::label_smoothing(op, label_smoothing);
  const int64_t rows = logits.size(0), classes = logits.size(1);
  value(rows > 0, op, "logits must have at least one row, got ", shape(logits));
  value(beta >= 0 && std::isfinite(beta), op, "beta must be zero or more and finite, got ", beta);
  Tensor row_loss = torch::stable::new_empty(logits, {rows}, compute_dtype(dtype));
  Tensor dlogits = torch::stable::new_empty(logits, {rows, classes}, compute_dtype(dtype));
  Tensor dadv_logits = torch::stable::new_empty(logits, {rows, classes}, compute_dtype(dtype));
  return {{logits.data_ptr(), adv_logits.data_ptr(), static_cast<const int64_t*>(labels.data_ptr()), dlogits.data_ptr(),
           dadv_logits.data_ptr(), row_loss.data_ptr(), dtype, rows, classes, 1.0 / static_cast<double>(rows), beta,
           label_smoothing},
          row_loss,
          dlogits,
          dadv_logits};
}

}  // namespace
}  // namespace checks

namespace {

// loss: a scalar, to be written.
void run(Cpu, const char* op, const Call& call, const Tensor& loss) {
  const TradesLoss& args = call.args;
  checks::labels_in_range(op, args.labels, args.rows, args.classes);
  torch::stable::parallel_for(0, args.rows, row_grain(args.classes),
                              [&](int64_t begin, int64_t end) { cpu::trades_loss(args, begin, end); });
  add_up(args.dtype, call.row_loss, loss);
}

#ifdef FASTADV_WITH_CUDA
void run(Cuda, const char* op, const Call& call, const Tensor& loss) {
  cuda::on_device_of(op, loss,
                     [&](cudaStream_t stream) { return cuda::trades_loss(call.args, loss.data_ptr(), stream); });
}
#endif

// logits, adv_logits, dlogits, dadv_logits [m, K]; labels [m].
template <class Backend>
std::tuple<Tensor, Tensor, Tensor> trades_loss(const Tensor& logits, const Tensor& adv_logits, const Tensor& labels,
                                               double beta, double label_smoothing) {
  const char* op = "trades_loss";
  check_device(Backend{}, op);
  const Call call = checks::trades_loss(op, logits, adv_logits, labels, beta, label_smoothing);
  const Tensor loss = torch::stable::new_empty(logits, {}, checks::compute_dtype(call.args.dtype));  // scalar
  run(Backend{}, op, call, loss);
  return {loss, call.dlogits, call.dadv_logits};
}

FASTADV_REGISTER(trades_loss)

}  // namespace
}  // namespace fastadv
