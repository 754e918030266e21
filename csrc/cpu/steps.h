// What the step operators share on the CPU.
#pragma once

#include "../checks.h"
#include "kernels.h"

namespace fastadv::cpu {

constexpr int64_t kGrain = 32768;  // elements a thread is worth waking for

inline int64_t elements(const Batch& batch) { return batch.examples * batch.channels * batch.plane; }

// On the CPU the values themselves can be checked at no cost worth naming.
inline void eps_not_negative(const char* op, const Step& step) {
  if (step.eps.per_example == nullptr) return;
  for (int64_t n = 0; n < step.batch.examples; ++n) {
    const double eps = step.dtype == DType::float64 ? static_cast<const double*>(step.eps.per_example)[n]
                                                    : static_cast<const float*>(step.eps.per_example)[n];
    checks::value(eps >= 0, op, "eps must be zero or more, got ", eps, " for example ", n);
  }
}

}  // namespace fastadv::cpu
