// One pass of a step over the flat tensor, in packs of 16 bytes: what a step does to an element is its rule.
#pragma once

#include "cursor.cuh"
#include "launch.cuh"

namespace fastadv::cuda {

template <class T>
struct Operands {
  T* adv;          // [N, C, ...]
  const T* clean;  // [N, C, ...]; null before the first step, where it is adv itself
  const T* grad;   // [N, C, ...]
};

template <class T>
Operands<T> operands(const Step& step) {
  return {static_cast<T*>(step.adv), static_cast<const T*>(step.clean), static_cast<const T*>(step.grad)};
}

template <class T, int kWidth>
__device__ __forceinline__ Pack<T, kWidth> read(const T* from, int64_t first) {
  return *reinterpret_cast<const Pack<T, kWidth>*>(from + first);
}

// rule(adv, clean, gradient, cursor, places) is the new adv; rule.enter(example) comes before the elements of a pack.
// Rule::kFirst: clean is adv itself. Rule::blocks: how many blocks a multiprocessor shall hold at once.
template <class T, int kWidth, bool kLast, class Rule>
__device__ __forceinline__ void step_pack(const Operands<T>& in, int64_t pack, Rule rule,
                                          const Places<compute_t<T>>& places) {
  visit_pack<kWidth, kLast>(pack, places, [&](auto width, int64_t first, Cursor<compute_t<T>, kLast> at) {
    constexpr int count = decltype(width)::value;
    Pack<T, count> a = read<T, count>(in.adv, first);
    const Pack<T, count> g = read<T, count>(in.grad, first);
    const Pack<T, count> c = Rule::kFirst ? a : read<T, count>(in.clean, first);
    rule.enter(at.example);
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const compute_t<T> here = load(a.value[i]);
      store(a.value[i], rule(here, Rule::kFirst ? here : load(c.value[i]), load(g.value[i]), at, places));
      at.next(places);
    }
    *reinterpret_cast<Pack<T, count>*>(in.adv + first) = a;
  });
}

template <class T, int kWidth, bool kLast, class Rule>
__global__ void __launch_bounds__(kThreads, Rule::template blocks<T, kLast>())
    step_kernel(const Operands<T> in, const Layout layout, const Rule rule,
                const __grid_constant__ Places<compute_t<T>> places) {
  for (int64_t pack = thread_index(); pack < layout.packs; pack += thread_count())
    step_pack<T, kWidth, kLast>(in, layout.head + pack * kWidth, rule, places);
  // The few elements before and behind the packs.
  const int64_t tail = layout.head + layout.packs * kWidth, single = thread_index();
  if (single < layout.head) step_pack<T, 1, kLast>(in, single, rule, places);
  if (single < layout.total - tail) step_pack<T, 1, kLast>(in, tail + single, rule, places);
}

template <class T, int kWidth, class Rule>
void launch_step(const Step& step, const Layout& layout, const Rule& rule, cudaStream_t stream) {
  const auto kernel =
      step.batch.channels_last ? step_kernel<T, kWidth, true, Rule> : step_kernel<T, kWidth, false, Rule>;
  FASTADV_LAUNCH(kernel, blocks_for(layout.packs > 0 ? layout.packs : 1), kThreads, stream, operands<T>(step), layout,
                 rule, places<compute_t<T>>(step));
}

// In packs where the operands' addresses allow it.
template <class T, class Rule>
void launch_step(const Step& step, const Rule& rule, cudaStream_t stream) {
  const int64_t total = step.batch.examples * step.batch.channels * step.batch.plane;
  Layout layout{total, 0, total};
  if (wide_layout<T>(total, step.adv, step.clean, step.grad, &layout))
    launch_step<T, kWide<T>>(step, layout, rule, stream);
  else launch_step<T, 1>(step, layout, rule, stream);
}

}  // namespace fastadv::cuda
