// Arguments of truncated_normal_, and of sample_eps, which calls it.
#pragma once

#include <cmath>

#include "../ops/truncated_normal.h"
#include "rng_state.h"

namespace fastadv::checks {

// eps [N].
inline EpsSample eps_sample(const char* op, const Tensor& eps, double sigma, double upper, int64_t seed, int64_t offset,
                            const std::optional<Tensor>& rng_state) {
  const DType dtype = floating(op, "eps", eps);
  value(eps.dim() == 1 && eps.is_contiguous(), op, "eps must be a contiguous tensor of shape [N], got ", shape(eps));
  value(sigma > 0 && std::isfinite(sigma), op, "sigma must be positive and finite, got ", sigma);
  value(upper > 0 && std::isfinite(upper), op, "upper must be positive and finite, got ", upper);
  return {eps.data_ptr(), dtype, eps.size(0), sigma, upper, rng_state_of(op, eps, seed, offset, rng_state)};
}

}  // namespace fastadv::checks
