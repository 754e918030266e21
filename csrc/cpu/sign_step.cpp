// adv <- clamp_range(clip_{clean, eps}(adv + alpha * sign(grad))), in place: three reads and a write an element, or
// two reads and a write where clean is adv itself.
#include "../ops/sign_step.h"

#include "spans.h"

namespace fastadv::cpu::FASTADV_ISA {
namespace {

// adv and clean never overlap unless they are the same, and grad overlaps neither: checked before the launch.
template <bool kFirst, class T, class Constants>
FASTADV_HOST_DEVICE void span(T* __restrict adv, const T* __restrict clean, const T* __restrict grad, int64_t begin,
                              int64_t end, const Constants& constants) {
  for (int64_t i = begin; i < end; ++i) {
    const auto at = load(adv[i]), gradient = load(grad[i]);
    const auto bounds = bounds_at(constants, i);
    store(adv[i],
          kFirst ? first_sign_step(at, gradient, bounds) : fastadv::sign_step(at, load(clean[i]), gradient, bounds));
  }
}

template <bool kFirst, class T, class Constants>
FASTADV_HOST_DEVICE void aligned_span(T* adv, const T* clean, const T* grad, int64_t count,
                                      const Constants& constants) {
  const int64_t head = to_cache_line(adv, count);
  span<kFirst>(adv, clean, grad, 0, head, constants);
  span<kFirst>(adv, clean, grad, head, count, constants);
}

}  // namespace

void sign_step(const Step& step, int64_t begin, int64_t end) {
  with_type(step.dtype, [&](auto type) {
    using T = decltype(type);
    T* adv = static_cast<T*>(step.adv);                  // [N, C, ...]
    const T* clean = static_cast<const T*>(step.clean);  // [N, C, ...] or null
    const T* grad = static_cast<const T*>(step.grad);    // [N, C, ...]
    for_each_span<compute_t<T>>(step, begin, end, [&](int64_t, int64_t first, int64_t count, const auto& constants) {
      if (clean == nullptr) aligned_span<true>(adv + first, clean, grad + first, count, constants);
      else aligned_span<false>(adv + first, clean + first, grad + first, count, constants);
    });
  });
}

}  // namespace fastadv::cpu::FASTADV_ISA
