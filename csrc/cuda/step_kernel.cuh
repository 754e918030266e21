// One pass of a step over a batch, in packs of 16 bytes: what a step does to an element is its rule.
//
// rule(element, constants) is the new adv; rule.enter(example) comes before the elements of a pack. Rule::kFirst: clean
// is adv itself. Rule::kMomentum: previous is read, and becomes what adv was. Rule::blocks: the minimum of resident
// blocks per multiprocessor (the second argument of __launch_bounds__). Rule::tile_blocks: the same for tiles.
// Rule::tile_packs: packs of a tile that a thread loads before it uses the first, as many as fit into the registers
// that this many blocks leave.
//
// Long runs are stepped tile by tile (tile_step.cuh). Short ones, channels that lie last and are not three, operands at
// odd addresses, and float64 are walked as one flat tensor, where each thread finds the place of its pack or element.
#pragma once

#include "tile_step.cuh"

namespace fastadv::cuda {

template <class T, int kWidth, bool kLast, class Rule>
__device__ __forceinline__ void step_pack(const Operands<T>& in, int64_t pack, Rule rule,
                                          const Places<compute_t<T>>& places) {
  using F = compute_t<T>;
  visit_pack<kWidth, kLast>(pack, places, [&](auto width, int64_t first, Cursor<F, kLast> at) {
    // Called in order, so the cursor moves on before every element but the first.
    const auto constants = [&](int i) -> Constants<F> {
      if (i > 0) at.next(places);
      return {at.bounds, places.space.inverse_std[at.constant(places)]};
    };
    step_packs<decltype(width)::value, 1, 0>(in, first, at.example, rule, [&] { return constants; });
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
void launch_flat(const Step& step, const Layout& layout, const Rule& rule, cudaStream_t stream) {
  const auto kernel =
      step.batch.channels_last ? step_kernel<T, kWidth, true, Rule> : step_kernel<T, kWidth, false, Rule>;
  FASTADV_LAUNCH(kernel, blocks_for(layout.packs > 0 ? layout.packs : 1), kThreads, stream, operands<T>(step), layout,
                 rule, places<compute_t<T>>(step));
}

template <class T, int kPeriod, class Rule>
void launch_tiles(const Step& step, const Layout& layout, const Rule& rule, cudaStream_t stream) {
  constexpr int width = kWide<T>;
  const StepTiles<T, kPeriod, Rule> tiles(step.batch, static_cast<uint32_t>((width - layout.head) % width));
  const auto kernel = tile_step_kernel<T, kPeriod, Rule>;
  FASTADV_LAUNCH(kernel, tiles.all, kThreads, stream, operands<T>(step), tiles, rule, places<compute_t<T>>(step));
}

template <class T, class Rule>
void launch_step(const Step& step, const Rule& rule, cudaStream_t stream) {
  const Batch& batch = step.batch;
  const int64_t total = batch.examples * batch.channels * batch.plane;
  Layout layout{total, 0, total};
  if (!wide_layout<T>(total, step.adv, {step.clean, step.grad, step.previous}, &layout))
    return launch_flat<T, 1>(step, layout, rule, stream);
  if constexpr (kInTiles<T>) {
    if (!batch.channels_last && StepTiles<T, 1, Rule>::suit(batch))
      return launch_tiles<T, 1>(step, layout, rule, stream);
    if (batch.channels_last && batch.channels == 3 && StepTiles<T, 3, Rule>::suit(batch))
      return launch_tiles<T, 3>(step, layout, rule, stream);
  }
  launch_flat<T, kWide<T>>(step, layout, rule, stream);
}

}  // namespace fastadv::cuda
