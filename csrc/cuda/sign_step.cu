// adv <- clamp_range(clip_{clean, eps}(adv + alpha * sign(grad))), in place: one pass at the speed of memory.
#include "cursor.cuh"
#include "launch.cuh"
#include "launchers.h"

namespace fastadv::cuda {
namespace {

template <class T, int kWidth, bool kFirst, bool kChannelsLast>
__device__ __forceinline__ void step_pack(T* adv, const T* clean, const T* grad, int64_t first,
                                          const Places<compute_t<T>>& places) {
  using F = compute_t<T>;
  using P = Pack<T, kWidth>;
  P a = *reinterpret_cast<const P*>(adv + first);
  const P g = *reinterpret_cast<const P*>(grad + first);
  const P c = kFirst ? a : *reinterpret_cast<const P*>(clean + first);
  Cursor<F, kChannelsLast> at(places, first);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const F here = load(a.value[i]), gradient = load(g.value[i]);
    store(a.value[i],
          kFirst ? first_sign_step(here, gradient, at.bounds) : sign_step(here, load(c.value[i]), gradient, at.bounds));
    if (i + 1 < kWidth) at.next(places);
  }
  *reinterpret_cast<P*>(adv + first) = a;
}

// adv and clean may be the same (kFirst); grad overlaps neither.
template <class T, int kWidth, bool kFirst, bool kChannelsLast>
__global__ void __launch_bounds__(kThreads)
    sign_step_kernel(T* __restrict__ adv, const T* __restrict__ clean, const T* __restrict__ grad, const Layout layout,
                     const __grid_constant__ Places<compute_t<T>> places) {
  for (int64_t pack = thread_index(); pack < layout.packs; pack += thread_count())
    step_pack<T, kWidth, kFirst, kChannelsLast>(adv, clean, grad, layout.head + pack * kWidth, places);
  // The few elements before and behind the packs.
  const int64_t tail = layout.head + layout.packs * kWidth, single = thread_index();
  if (single < layout.head) step_pack<T, 1, kFirst, kChannelsLast>(adv, clean, grad, single, places);
  if (single < layout.total - tail) step_pack<T, 1, kFirst, kChannelsLast>(adv, clean, grad, tail + single, places);
}

template <class T, int kWidth, bool kFirst, bool kChannelsLast>
void launch(const Step& step, const Layout& layout, cudaStream_t stream) {
  FASTADV_LAUNCH((sign_step_kernel<T, kWidth, kFirst, kChannelsLast>), blocks_for(layout.packs > 0 ? layout.packs : 1),
                 kThreads, stream, static_cast<T*>(step.adv), static_cast<const T*>(step.clean),
                 static_cast<const T*>(step.grad), layout, places<compute_t<T>>(step));
}

template <class T, int kWidth>
void choose(const Step& step, const Layout& layout, cudaStream_t stream) {
  const bool first = step.clean == nullptr, last = step.batch.channels_last;
  if (first && last) launch<T, kWidth, true, true>(step, layout, stream);
  else if (first) launch<T, kWidth, true, false>(step, layout, stream);
  else if (last) launch<T, kWidth, false, true>(step, layout, stream);
  else launch<T, kWidth, false, false>(step, layout, stream);
}

}  // namespace

cudaError_t sign_step(const Step& step, cudaStream_t stream) {
  const int64_t total = step.batch.examples * step.batch.channels * step.batch.plane;
  if (total == 0) return cudaSuccess;
  with_type(step.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    Layout layout{total, 0, total};
    if (wide_layout<T>(total, step.adv, step.clean, step.grad, &layout)) choose<T, kWide<T>>(step, layout, stream);
    else choose<T, 1>(step, layout, stream);
  });
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
