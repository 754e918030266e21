// Arguments of the losses of a margin between classes.
#pragma once

#include <optional>
#include <string>

#include "../math/margin.h"
#include "logits.h"

namespace fastadv::checks {

// The loss of this name, if there is one.
inline std::optional<MarginLoss> margin_loss(const std::string& name) {
  if (name == "margin") return MarginLoss::margin;
  if (name == "dlr") return MarginLoss::dlr;
  if (name == "targeted_dlr") return MarginLoss::targeted_dlr;
  return std::nullopt;
}

// logits [N, K]; labels, targets [N].
inline void margin(const char* op, const std::string& name, MarginLoss loss, const Tensor& logits,
                   const std::optional<Tensor>& labels, const std::optional<Tensor>& targets) {
  value(logits.size(1) >= classes_needed(loss), op, "rule '", name, "' needs at least ", classes_needed(loss),
        " classes, got ", logits.size(1));
  value(labels.has_value(), op, "rule '", name, "' needs labels [N]");
  checks::labels(op, *labels, logits);
  if (loss != MarginLoss::targeted_dlr) return;
  value(targets.has_value(), op, "rule '", name, "' needs targets [N]");
  checks::labels(op, *targets, logits, "targets");
}

// Their data, for the losses that take them.
inline const int64_t* class_indices(const std::optional<Tensor>& classes, bool taken) {
  return taken ? static_cast<const int64_t*>(classes->data_ptr()) : nullptr;
}

}  // namespace fastadv::checks
