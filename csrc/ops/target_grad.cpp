#include "target_grad.h"

#include "../checks/margins.h"
#include "../checks/rng_state.h"
#include "backends.h"

namespace fastadv {

// target [N] and d(sum of the costs) / d logits; rule is label, predicted, least_likely, random, entropy, margin, dlr
// or targeted_dlr. rng_state [2] is as in noise_step_; targets [N] are those of targeted_dlr.
STABLE_TORCH_LIBRARY_FRAGMENT(fastadv, m) {
  m.def(
      "target_grad(Tensor logits, str rule, Tensor? labels, float label_smoothing, int seed, int offset, "
      "Tensor? rng_state, Tensor? targets) -> (Tensor target, Tensor dlogits)");

  // The same derivative as dlogits * 2^exponent, exponent [N] int32, by which the largest of a row is in [0.5, 1).
  m.def(
      "scaled_target_grad(Tensor logits, str rule, Tensor? labels, float label_smoothing, int seed, int offset, "
      "Tensor? rng_state, Tensor? targets) -> (Tensor target, Tensor dlogits, Tensor exponent)");
}

namespace {

struct Call {
  TargetGrad args;
  Tensor target, dlogits;  // [N] int64, [N, K]
};

}  // namespace

namespace checks {
namespace {

Rule rule(const char* op, const std::string& text) {
  if (text == "label") return Rule::label;
  if (text == "predicted") return Rule::predicted;
  if (text == "least_likely") return Rule::least_likely;
  if (text == "random") return Rule::random;
  if (text == "entropy") return Rule::entropy;
  value(margin_loss(text).has_value(), op,
        "rule must be 'label', 'predicted', 'least_likely', 'random', 'entropy', 'margin', 'dlr' or 'targeted_dlr', "
        "got '",
        text, "'");
  return Rule::margin;
}

// logits [N, K]; labels, targets [N]; rng_state [2].
Call target_grad(const char* op, const Tensor& logits, const std::string& rule_name,
                 const std::optional<Tensor>& labels, double label_smoothing, int64_t seed, int64_t offset,
                 const std::optional<Tensor>& rng_state, const std::optional<Tensor>& targets) {
  checks::logits(op, logits);
  const DType dtype = floating(op, "logits", logits);
  const Rule rule = checks::rule(op, rule_name);
  checks::label_smoothing(op, label_smoothing);
  value(rule != Rule::label || labels.has_value(), op, "rule 'label' needs labels [N]");
  if (rule == Rule::label) checks::labels(op, *labels, logits);
  const MarginLoss margin = margin_loss(rule_name).value_or(MarginLoss::margin);
  if (rule == Rule::margin) checks::margin(op, rule_name, margin, logits, labels, targets);
  const int64_t rows = logits.size(0), classes = logits.size(1);
  Tensor target = torch::stable::new_empty(logits, {rows}, ScalarType::Long);
  Tensor dlogits = torch::stable::new_empty(logits, {rows, classes});
  const bool with_labels = rule == Rule::label || rule == Rule::margin;
  const bool with_targets = rule == Rule::margin && margin == MarginLoss::targeted_dlr;
  return {{logits.data_ptr(), class_indices(labels, with_labels), dlogits.data_ptr(),
           static_cast<int64_t*>(target.data_ptr()), nullptr, dtype, rows, classes, rule, label_smoothing,
           rng_state_of(op, logits, seed, offset, rng_state), margin, class_indices(targets, with_targets)},
          target,
          dlogits};
}

}  // namespace
}  // namespace checks

namespace {

void run(Cpu, const char* op, const Tensor&, const TargetGrad& args) {
  checks::labels_in_range(op, args.labels, args.rows, args.classes);
  checks::labels_in_range(op, args.targets, args.rows, args.classes, "targets");
  torch::stable::parallel_for(0, args.rows, row_grain(args.classes), [&](int64_t begin, int64_t end) {
    if (args.rule == Rule::margin) cpu::margin_grad(args, begin, end);
    else cpu::target_grad(args, begin, end);
  });
}

#ifdef FASTADV_WITH_CUDA
void run(Cuda, const char* op, const Tensor& logits, const TargetGrad& args) {
  cuda::on_device_of(op, logits, [&](cudaStream_t stream) {
    return args.rule == Rule::margin ? cuda::margin_grad(args, stream) : cuda::target_grad(args, stream);
  });
}
#endif

// Throughout: logits, dlogits [N, K]; labels, target, exponent, targets [N]; rng_state [2].

template <class Backend>
std::tuple<Tensor, Tensor> target_grad(const Tensor& logits, const std::string& rule, std::optional<Tensor> labels,
                                       double label_smoothing, int64_t seed, int64_t offset,
                                       std::optional<Tensor> rng_state, std::optional<Tensor> targets) {
  const char* op = "target_grad";
  check_device(Backend{}, op);
  const Call call = checks::target_grad(op, logits, rule, labels, label_smoothing, seed, offset, rng_state, targets);
  run(Backend{}, op, logits, call.args);
  return {call.target, call.dlogits};
}

template <class Backend>
std::tuple<Tensor, Tensor, Tensor> scaled_target_grad(const Tensor& logits, const std::string& rule,
                                                      std::optional<Tensor> labels, double label_smoothing,
                                                      int64_t seed, int64_t offset, std::optional<Tensor> rng_state,
                                                      std::optional<Tensor> targets) {
  const char* op = "scaled_target_grad";
  check_device(Backend{}, op);
  Call call = checks::target_grad(op, logits, rule, labels, label_smoothing, seed, offset, rng_state, targets);
  const Tensor exponent = torch::stable::new_empty(logits, {logits.size(0)}, torch::headeronly::ScalarType::Int);
  call.args.exponent = static_cast<int32_t*>(exponent.data_ptr());
  run(Backend{}, op, logits, call.args);
  return {call.target, call.dlogits, exponent};
}

FASTADV_REGISTER(target_grad)
FASTADV_REGISTER(scaled_target_grad)

}  // namespace
}  // namespace fastadv
