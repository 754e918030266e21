#include "row_losses.h"

#include "../checks/margins.h"
#include "backends.h"

namespace fastadv {

// The loss of each row, [N]: ce, log_odds, margin, dlr or targeted_dlr, which alone takes targets [N].
STABLE_TORCH_LIBRARY_FRAGMENT(fastadv, m) {
  m.def("row_losses(Tensor logits, Tensor labels, str rule, Tensor? targets) -> Tensor losses");
}

namespace checks {
namespace {

RowLoss row_loss(const char* op, const std::string& text) {
  if (text == "ce") return RowLoss::cross_entropy;
  if (text == "log_odds") return RowLoss::log_odds;
  value(margin_loss(text).has_value(), op, "rule must be 'ce', 'log_odds', 'margin', 'dlr' or 'targeted_dlr', got '",
        text, "'");
  return RowLoss::margin;
}

}  // namespace
}  // namespace checks

namespace {

void run(Cpu, const char* op, const Tensor&, const RowLosses& args) {
  checks::labels_in_range(op, args.labels, args.rows, args.classes);
  checks::labels_in_range(op, args.targets, args.rows, args.classes, "targets");
  torch::stable::parallel_for(0, args.rows, row_grain(args.classes),
                              [&](int64_t begin, int64_t end) { cpu::row_losses(args, begin, end); });
}

#ifdef FASTADV_WITH_CUDA
void run(Cuda, const char* op, const Tensor& logits, const RowLosses& args) {
  cuda::on_device_of(op, logits, [&](cudaStream_t stream) { return cuda::row_losses(args, stream); });
}
#endif

// logits [N, K]; labels, targets, losses [N].
template <class Backend>
Tensor row_losses(const Tensor& logits, const Tensor& labels, const std::string& rule, std::optional<Tensor> targets) {
  const char* op = "row_losses";
  check_device(Backend{}, op);
  checks::logits(op, logits);
  const DType dtype = checks::floating(op, "logits", logits);
  const RowLoss loss = checks::row_loss(op, rule);
  const MarginLoss margin = checks::margin_loss(rule).value_or(MarginLoss::margin);
  if (loss == RowLoss::margin) checks::margin(op, rule, margin, logits, labels, targets);
  else checks::labels(op, labels, logits);
  const int64_t rows = logits.size(0), classes = logits.size(1);
  const Tensor losses = torch::stable::new_empty(logits, {rows}, checks::compute_dtype(dtype));
  const bool with_targets = loss == RowLoss::margin && margin == MarginLoss::targeted_dlr;
  run(Backend{}, op, logits,
      {logits.data_ptr(), checks::class_indices(labels, true), checks::class_indices(targets, with_targets),
       losses.data_ptr(), dtype, rows, classes, loss, margin});
  return losses;
}

FASTADV_REGISTER(row_losses)

}  // namespace
}  // namespace fastadv
