// APGD's step with momentum, in place on adv and previous: four reads and two writes an element in the Linf ball. In
// the L2 ball, the distances that its two projections ask for come before.
#include "../ops/apgd_step.h"

#include "../math/apgd_step.h"
#include "chunks.h"

namespace fastadv::cpu::FASTADV_ISA {
namespace {

template <class T>
struct Images {
  T *adv, *previous;      // [N, C, ...]
  const T *clean, *grad;  // [N, C, ...]
};

template <class T>
FASTADV_HOST_DEVICE Images<T> images(const Step& step, int64_t first = 0) {
  return {static_cast<T*>(step.adv) + first, static_cast<T*>(step.previous) + first,
          static_cast<const T*>(step.clean) + first, static_cast<const T*>(step.grad) + first};
}

// None of the four overlap: checked before.
template <class T, class Constants, class F = compute_t<T>>
FASTADV_HOST_DEVICE void sign_span(T* __restrict adv, T* __restrict previous, const T* __restrict clean,
                                   const T* __restrict grad, int64_t begin, int64_t end, const Constants& constants,
                                   Momentum<F> momentum) {
  for (int64_t i = begin; i < end; ++i) {
    const T there = adv[i];
    const F result = fastadv::apgd_sign_step(load(there), load(previous[i]), load(clean[i]), load(grad[i]),
                                             bounds_at(constants, i), momentum);
    previous[i] = there;
    store(adv[i], result);
  }
}

// Where element i of a span is moved to before the second projection.
template <class T, class Constants, class F = compute_t<T>>
FASTADV_HOST_DEVICE F unit_move(const Images<T>& of, int64_t at, const Constants& constants, int64_t i,
                                UnitStep example, Momentum<F> momentum) {
  return apgd_unit_move(load(of.adv[at]), load(of.previous[at]), load(of.clean[at]), load(of.grad[at]),
                        inverse_std_at(constants, i), bounds_at(constants, i), example, momentum);
}

}  // namespace

void apgd_sign_step(const ApgdStep& args, int64_t begin, int64_t end) {
  with_type(args.step.dtype, [&](auto type) {
    using T = decltype(type);
    using F = compute_t<T>;
    const Momentum<F> momentum = momentum_of<F>(args.momentum);
    for_each_span<F>(args.step, begin, end, [&](int64_t, int64_t first, int64_t count, const auto& constants) {
      const Images<T> of = images<T>(args.step, first);
      const int64_t head = to_cache_line(of.adv, count);
      sign_span(of.adv, of.previous, of.clean, of.grad, 0, head, constants, momentum);
      sign_span(of.adv, of.previous, of.clean, of.grad, head, count, constants, momentum);
    });
  });
}

void apgd_distance_squares(const ApgdStep& args, const double* inverse_length, const double* shrink_z, double* partial,
                           int64_t begin, int64_t end) {
  with_type(args.step.dtype, [&](auto type) {
    using T = decltype(type);
    using F = compute_t<T>;
    const Momentum<F> momentum = momentum_of<F>(args.momentum);
    const Images<T> of = images<T>(args.step);
    for_each_chunk<F>(
        args.step, partial, begin, end,
        [&](int64_t at, int64_t example, const auto& constants, int64_t i) {
          const UnitStep factors{inverse_length[example], shrink_z[example]};
          const double pixels = pixel_distance(unit_move(of, at, constants, i, factors, momentum), load(of.clean[at]),
                                               std_at(constants, i));
          return pixels * pixels;
        },
        sum);
  });
}

void apgd_unit_step(const ApgdStep& args, const double* inverse_length, const double* shrink_z, const double* shrink,
                    int64_t begin, int64_t end) {
  with_type(args.step.dtype, [&](auto type) {
    using T = decltype(type);
    using F = compute_t<T>;
    const Momentum<F> momentum = momentum_of<F>(args.momentum);
    for_each_span<F>(args.step, begin, end, [&](int64_t example, int64_t first, int64_t count, const auto& constants) {
      const Images<T> of = images<T>(args.step, first);
      const UnitStep factors{inverse_length[example], shrink_z[example]};
      for (int64_t i = 0; i < count; ++i) {
        const Bounds<F> bounds = bounds_at(constants, i);
        const T there = of.adv[i];
        const F result = shrunk(unit_move(of, i, constants, i, factors, momentum), load(of.clean[i]), shrink[example]);
        of.previous[i] = there;
        store(of.adv[i], clamp(result, bounds.lower, bounds.upper));
      }
    });
  });
}

}  // namespace fastadv::cpu::FASTADV_ISA
