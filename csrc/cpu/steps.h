// What the step operators share on the CPU.
#pragma once

#include "../checks.h"
#include "kernels.h"

namespace fastadv::cpu {

constexpr int64_t kGrain = 32768;  // elements a thread is worth waking for

inline int64_t elements(const Batch& batch) { return batch.examples * batch.channels * batch.plane; }

inline double value_of(const PerExample& amount, DType dtype, int64_t example) {
  if (amount.per_example == nullptr) return amount.value;
  return amount.value * (dtype == DType::float64 ? static_cast<const double*>(amount.per_example)[example]
                                                 : static_cast<const float*>(amount.per_example)[example]);
}

// On the CPU the values of each example can be checked at no cost worth naming.
inline void amounts_in_range(const char* op, const Step& step) {
  for (int64_t n = 0; step.eps.per_example != nullptr && n < step.batch.examples; ++n) {
    const double eps = value_of(step.eps, step.dtype, n);
    checks::value(eps >= 0, op, "eps must be zero or more, got ", eps, " for example ", n);
  }
  for (int64_t n = 0; step.alpha.per_example != nullptr && n < step.batch.examples; ++n) {
    const double alpha = value_of(step.alpha, step.dtype, n);
    checks::value(std::isfinite(alpha), op, "alpha must be finite, got ", alpha, " for example ", n);
  }
}

}  // namespace fastadv::cpu
