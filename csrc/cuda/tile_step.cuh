// A step over long runs, tile by tile.
#pragma once

#include "operands.cuh"
#include "tile.cuh"

namespace fastadv::cuda {

// Not float64, which is rare and would need more registers than a full multiprocessor has.
template <class T>
constexpr bool kInTiles = sizeof(T) < 8;

// The constants of kPeriod channels in turn: of one, or of all of three that lie last.
template <class F, int kPeriod>
struct ChannelConstants {
  Constants<F> channel[kPeriod];

  __device__ __forceinline__ ChannelConstants(const Places<F>& places, int64_t example, uint32_t first) {
#pragma unroll
    for (int i = 0; i < kPeriod; ++i) {
      const uint32_t c = nth(first, i);
      channel[i] = {places.space.bounds[c], places.space.inverse_std[c]};
    }
    if (places.per_example) enter(places, example, first);
  }

  // Of the i-th element after the first.
  __device__ __forceinline__ const Constants<F>& operator()(int i) const { return channel[i % kPeriod]; }

 private:
  __device__ __forceinline__ static uint32_t nth(uint32_t first, uint32_t i) {
    return kPeriod == 1 ? first : (first + i) % kPeriod;
  }

  __device__ __forceinline__ void enter(const Places<F>& places, int64_t example, uint32_t first) {
    const F alpha = alpha_of(places, example), eps = eps_of(places, example);
#pragma unroll
    for (int i = 0; i < kPeriod; ++i) {
      Bounds<F>& bounds = channel[i].bounds;
      if (places.alpha.scale != nullptr) bounds.alpha = in_input(alpha, places.space, nth(first, i));
      if (places.eps.scale != nullptr) bounds.eps = in_input(eps, places.space, nth(first, i));
    }
  }
};

// A tile at an end of its run: the packs that are the run's, and the few elements before and behind them.
template <class T, class Tiles, class Rule, class ConstantsAt>
__device__ __forceinline__ void step_end(const Operands<T>& in, const Tiles& tiles, const Tile<Tiles>& tile, Rule rule,
                                         ConstantsAt&& constants_at) {
  constexpr uint32_t width = kWide<T>;
  const uint32_t from = tile.from(), to = tile.to(tiles), packs_to = to - to % width;
#pragma unroll 1
  for (uint32_t at = threadIdx.x * width; at < packs_to; at += tiles.kDistance)
    if (at >= from) step_packs<width, 1, 0>(in, tile.first + at, tile.example, rule, [&] { return constants_at(at); });
  const uint32_t head = (width - from) % width, thread = threadIdx.x;
  if (thread < head + to % width) {
    const uint32_t at = thread < head ? from + thread : packs_to + (thread - head);
    step_packs<1, 1, 0>(in, tile.first + at, tile.example, rule, [&] { return constants_at(at); });
  }
}

template <class T, int kPeriod, class Rule>
using StepTiles = Tiles<kWide<T>, Rule::template tile_packs<T>(kPeriod != 1)>;

// A block for each tile. kPeriod: 3 for three channels that lie last, 1 for contiguous batches.
template <class T, int kPeriod, class Rule>
__global__ void __launch_bounds__(kThreads, Rule::template tile_blocks<T>(kPeriod != 1))
    tile_step_kernel(const Operands<T> in, const __grid_constant__ StepTiles<T, kPeriod, Rule> tiles, const Rule rule,
                     const __grid_constant__ Places<compute_t<T>> places) {
  const Tile<StepTiles<T, kPeriod, Rule>> tile(tiles, blockIdx.x);
  const auto constants_at = [&](uint32_t at) {
    const uint32_t channel = kPeriod == 1 ? tile.channel : tile.template last_channel<kPeriod>(at);
    return ChannelConstants<compute_t<T>, kPeriod>(places, tile.example, channel);
  };
  const uint32_t at = threadIdx.x * tiles.kWidth;
  if (tile.whole)
    step_packs<tiles.kWidth, tiles.kPacks, tiles.kDistance>(in, tile.first + at, tile.example, rule,
                                                            [&] { return constants_at(at); });
  else step_end(in, tiles, tile, rule, constants_at);
}

}  // namespace fastadv::cuda
