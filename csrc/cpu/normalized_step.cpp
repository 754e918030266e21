// The passes of a step along the gradient over its norm: the norm, for L2 the distance it would reach, the step itself.
#include "../ops/normalized_step.h"

#include "../math/normalized_step.h"
#include "spans.h"

namespace fastadv::cpu::FASTADV_ISA {
namespace {

constexpr int64_t kLanes = 16;  // independent partial sums, added in a fixed order on every instruction set

// partial[chunk] <- reduction of term(first + i, i, example, constants) over the chunk's elements.
template <class F, class Term, class Join>
FASTADV_HOST_DEVICE void for_each_chunk(const Step& step, double* partial, int64_t begin, int64_t end, Term term,
                                        Join join) {
  const int64_t elements = step.batch.channels * step.batch.plane, chunks = chunks_per_example(step.batch);
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t origin = chunk / chunks * elements, start = chunk % chunks * kChunk;
    const int64_t stop = start + kChunk < elements ? start + kChunk : elements;
    double lane[kLanes] = {};
    for_each_span<F>(step, origin + start, origin + stop,
                     [&](int64_t example, int64_t first, int64_t count, const auto& constants) {
                       int64_t i = 0;
                       for (; i + kLanes <= count; i += kLanes)
                         for (int64_t l = 0; l < kLanes; ++l)
                           lane[l] = join(lane[l], term(first + i + l, example, constants, i + l));
                       for (; i < count; ++i) lane[0] = join(lane[0], term(first + i, example, constants, i));
                     });
    double total = 0.0;
    for (double value : lane) total = join(total, value);
    partial[chunk] = total;
  }
}

FASTADV_HOST_DEVICE double larger(double a, double b) { return a > b ? a : b; }
FASTADV_HOST_DEVICE double sum(double a, double b) { return a + b; }

}  // namespace

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
