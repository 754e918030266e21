// Where the random numbers of a call begin.
#pragma once

#include <optional>

#include "tensors.h"

namespace fastadv::checks {

// rng_state [2] or none.
inline RngState rng_state_of(const char* op, const Tensor& reference, int64_t seed, int64_t offset,
                             const std::optional<Tensor>& rng_state) {
  value(offset >= 0, op, "offset must be zero or more, got ", offset);
  if (!rng_state.has_value()) return {static_cast<uint64_t>(seed), static_cast<uint64_t>(offset), nullptr};
  type(rng_state->scalar_type() == ScalarType::Long, op, "rng_state must be int64, got ",
       name(rng_state->scalar_type()));
  same_device(op, "rng_state", *rng_state, reference);
  value(rng_state->dim() == 1 && rng_state->size(0) == 2 && rng_state->is_contiguous(), op,
        "rng_state must hold a seed and an offset, a contiguous tensor of shape [2], got shape ", shape(*rng_state));
  return {0, static_cast<uint64_t>(offset), static_cast<const int64_t*>(rng_state->data_ptr())};
}

}  // namespace fastadv::checks
