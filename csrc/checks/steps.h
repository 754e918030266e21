// Arguments of the steps: sign_step_, normalized_step_, apgd_step_ and noise_step_.
#pragma once

#include <cmath>
#include <optional>

#include "images.h"

namespace fastadv::checks {

inline void apart(const char* op, const char* what, const Tensor& tensor, const char* of, const Tensor& other) {
  value(!overlap(tensor, other), op, what, " must not share memory with ", of);
}

// A tensor that is read or written beside another.
inline void like(const char* op, const char* what, const Tensor& tensor, const char* of, const Tensor& other,
                 bool channels_last) {
  type(tensor.scalar_type() == other.scalar_type(), op, what, " must have ", of, "'s dtype ", name(other.scalar_type()),
       ", got ", name(tensor.scalar_type()));
  same_device(op, what, tensor, other);
  value(shape(tensor) == shape(other), op, what, " must have ", of, "'s shape ", shape(other), ", got ", shape(tensor));
  value(dense(tensor, channels_last), op, what, " must have ", of, "'s strides");
  apart(op, what, tensor, of, other);
}

// values [N] or none, adv [N, C, ...].
inline PerExample per_example(const char* op, const char* what, double number, const std::optional<Tensor>& values,
                              const Tensor& adv, DType dtype, bool negative_allowed) {
  value(!std::isnan(number) && (negative_allowed ? std::isfinite(number) : number >= 0), op, what, " must be ",
        negative_allowed ? "finite" : "zero or more", ", got ", number);
  if (!values.has_value()) return {number, nullptr};
  type(values->scalar_type() == compute_dtype(dtype), op, what, " per example must be ", name(compute_dtype(dtype)),
       ", got ", name(values->scalar_type()));
  same_device(op, what, *values, adv);
  value(values->dim() == 1 && values->size(0) == adv.size(0) && values->is_contiguous(), op, what,
        " must be a number or a contiguous tensor of shape [", adv.size(0), "], got shape ", shape(*values));
  value(!overlap(*values, adv), op, what, " must not share memory with adv");
  return {number, values->data_ptr()};
}

// adv, clean, grad [N, C, ...]; alpha_scale, eps_scale [N].
inline Step step(const char* op, const Tensor& adv, const std::optional<Tensor>& clean,
                 const std::optional<Tensor>& grad, double alpha, const std::optional<Tensor>& alpha_scale, double eps,
                 const std::optional<Tensor>& eps_scale, const std::vector<double>& std,
                 const std::vector<double>& lower, const std::vector<double>& upper, bool channels_apart) {
  const DType dtype = floating(op, "adv", adv);
  const bool last = channels_last(op, "adv", adv);
  if (clean.has_value()) like(op, "clean", *clean, "adv", adv, last);
  if (grad.has_value()) like(op, "grad", *grad, "adv", adv, last);
  const bool one_channel = std.size() == 1 && !(channels_apart && last);
  return {adv.data_ptr(),
          clean.has_value() ? clean->data_ptr() : nullptr,
          grad.has_value() ? grad->data_ptr() : nullptr,
          dtype,
          batch(adv, last, one_channel),
          space(op, adv, std, lower, upper),
          per_example(op, "alpha", alpha, alpha_scale, adv, dtype, true),
          per_example(op, "eps", eps, eps_scale, adv, dtype, false),
          nullptr};
}

inline int64_t elements(const Batch& batch) { return batch.examples * batch.channels * batch.plane; }

inline double value_of(const PerExample& number, DType dtype, int64_t example) {
  if (number.scale == nullptr) return number.value;
  return number.value * (dtype == DType::float64 ? static_cast<const double*>(number.scale)[example]
                                                 : static_cast<const float*>(number.scale)[example]);
}

// Reading them is cheap on the CPU; on a GPU it would wait for the device.
inline void alpha_and_eps_in_range(const char* op, const Step& step) {
  for (int64_t n = 0; step.eps.scale != nullptr && n < step.batch.examples; ++n) {
    const double eps = value_of(step.eps, step.dtype, n);
    value(eps >= 0, op, "eps must be zero or more, got ", eps, " for example ", n);
  }
  for (int64_t n = 0; step.alpha.scale != nullptr && n < step.batch.examples; ++n) {
    const double alpha = value_of(step.alpha, step.dtype, n);
    value(std::isfinite(alpha), op, "alpha must be finite, got ", alpha, " for example ", n);
  }
}

}  // namespace fastadv::checks
