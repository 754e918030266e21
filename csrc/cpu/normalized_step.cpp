// The passes of a step along the gradient over its norm: the norm, for L2 the distance it would reach, the step itself.
#include "../ops/normalized_step.h"

#include "chunks.h"

namespace fastadv::cpu::FASTADV_ISA {

void gradient_max(const Step& step, double* partial, int64_t begin, int64_t end) {
  with_type(step.dtype, [&](auto type) {
    using T = decltype(type);
    const T* grad = static_cast<const T*>(step.grad);  // [N, C, ...]
    for_each_chunk<compute_t<T>>(
        step, partial, begin, end,
        [&](int64_t at, int64_t, const auto& constants, int64_t i) {
          const double value = pixel_gradient(load(grad[at]), inverse_std_at(constants, i));
          return value < 0 ? -value : value;
        },
        larger);
  });
}

void gradient_squares(const Step& step, const double* inverse_scale, double* partial, int64_t begin, int64_t end) {
  with_type(step.dtype, [&](auto type) {
    using T = decltype(type);
    const T* grad = static_cast<const T*>(step.grad);  // [N, C, ...]
    for_each_chunk<compute_t<T>>(
        step, partial, begin, end,
        [&](int64_t at, int64_t example, const auto& constants, int64_t i) {
          const double value = pixel_gradient(load(grad[at]), inverse_std_at(constants, i)) * inverse_scale[example];
          return value * value;
        },
        sum);
  });
}

void distance_squares(const Step& step, const double* inverse_length, double* partial, int64_t begin, int64_t end) {
  with_type(step.dtype, [&](auto type) {
    using T = decltype(type);
    const T* adv = static_cast<const T*>(step.adv);      // [N, C, ...]
    const T* clean = static_cast<const T*>(step.clean);  // [N, C, ...]
    const T* grad = static_cast<const T*>(step.grad);    // [N, C, ...]
    for_each_chunk<compute_t<T>>(
        step, partial, begin, end,
        [&](int64_t at, int64_t example, const auto& constants, int64_t i) {
          const auto there = moved(load(adv[at]), load(grad[at]), inverse_std_at(constants, i),
                                   bounds_at(constants, i).alpha, inverse_length[example]);
          const double pixels = pixel_distance(there, load(clean[at]), std_at(constants, i));
          return pixels * pixels;
        },
        sum);
  });
}

void normalized_step(const Step& step, Norm norm, const double* inverse_length, const double* shrink, int64_t begin,
                     int64_t end) {
  with_type(step.dtype, [&](auto type) {
    using T = decltype(type);
    using F = compute_t<T>;
    T* adv = static_cast<T*>(step.adv);                                                // [N, C, ...]
    const T* clean = step.clean == nullptr ? adv : static_cast<const T*>(step.clean);  // [N, C, ...]
    const T* grad = static_cast<const T*>(step.grad);                                  // [N, C, ...]
    for_each_span<F>(step, begin, end, [&](int64_t example, int64_t first, int64_t count, const auto& constants) {
      const double factor = norm == Norm::l2 ? shrink[example] : 1.0;
      for (int64_t i = 0; i < count; ++i) {
        const Bounds<F> at = bounds_at(constants, i);
        const F base = load(clean[first + i]);
        const F there = shrunk(moved(load(adv[first + i]), load(grad[first + i]), inverse_std_at(constants, i),
                                     at.alpha, inverse_length[example]),
                               base, factor);
        store(adv[first + i],
              norm == Norm::l2 ? clamp(there, at.lower, at.upper) : clip(there, base, at.eps, at.lower, at.upper));
      }
    });
  });
}

}  // namespace fastadv::cpu::FASTADV_ISA
