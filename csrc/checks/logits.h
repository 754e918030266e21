// Arguments of the operators on logits.
#pragma once

#include "tensors.h"

namespace fastadv::checks {

// logits [N, K].
inline void logits(const char* op, const Tensor& logits) {
  value(logits.dim() == 2 && logits.size(1) >= 1, op, "logits must have shape [N, K] with K >= 1, got ", shape(logits));
  value(logits.is_contiguous(), op, "logits must be contiguous");
  value(logits.size(1) <= INT32_MAX, op, "at most 2^31 - 1 classes, got ", logits.size(1));
}

// other, logits [N, K].
inline void same_logits(const char* op, const char* what, const Tensor& other, const Tensor& logits) {
  type(other.scalar_type() == logits.scalar_type(), op, what, " must be ", name(logits.scalar_type()),
       ", like logits, got ", name(other.scalar_type()));
  same_device(op, what, other, logits);
  value(other.dim() == 2 && other.size(0) == logits.size(0) && other.size(1) == logits.size(1), op, what,
        " must have the shape of logits, ", shape(logits), ", got ", shape(other));
  value(other.is_contiguous(), op, what, " must be contiguous");
}

// labels [N], logits [N, K].
inline void labels(const char* op, const Tensor& labels, const Tensor& logits, const char* what = "labels") {
  type(labels.scalar_type() == ScalarType::Long, op, what, " must be int64, got ", name(labels.scalar_type()));
  same_device(op, what, labels, logits);
  value(labels.dim() == 1 && labels.size(0) == logits.size(0) && labels.is_contiguous(), op, what,
        " must be a contiguous tensor of shape [", logits.size(0), "], got ", shape(labels));
}

// Reading labels is cheap on the CPU. On a GPU, the row of a label out of range becomes NaN instead.
inline void labels_in_range(const char* op, const int64_t* labels, int64_t rows, int64_t classes,
                            const char* what = "labels") {
  for (int64_t i = 0; labels != nullptr && i < rows; ++i)
    value(labels[i] >= 0 && labels[i] < classes, op, what, " must be in [0, ", classes, "), got ", labels[i],
          " at row ", i);
}

inline void label_smoothing(const char* op, double smoothing) {
  value(smoothing >= 0 && smoothing < 1, op, "label_smoothing must be in [0, 1), got ", smoothing);
}

}  // namespace fastadv::checks
