// Where a call draws its random numbers from.
#pragma once

#include <optional>

#include "tensors.h"

namespace fastadv::checks {

// from [2] or none.
inline Stream stream(const char* op, const Tensor& reference, int64_t seed, int64_t offset,
                     const std::optional<Tensor>& from) {
  value(offset >= 0, op, "offset must be zero or more, got ", offset);
  if (!from.has_value()) return {static_cast<uint64_t>(seed), static_cast<uint64_t>(offset), nullptr};
  type(from->scalar_type() == ScalarType::Long, op, "stream must be int64, got ", name(from->scalar_type()));
  same_device(op, "stream", *from, reference);
  value(from->dim() == 1 && from->size(0) == 2 && from->is_contiguous(), op,
        "stream must hold a seed and an offset, a contiguous tensor of shape [2], got shape ", shape(*from));
  return {0, static_cast<uint64_t>(offset), static_cast<const int64_t*>(from->data_ptr())};
}

}  // namespace fastadv::checks
