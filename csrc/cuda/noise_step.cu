// adv <- clamp_range(clean + noise), the noise made where it is used: that of an element is keyed by its example and
// its place within the image, counted channel by channel in either layout, and is the CPU's to the bit.
#include "../math/noise.h"
#include "../ops/noise_step.h"
#include "cursor.cuh"
#include "launch.cuh"

namespace fastadv::cuda {
namespace {

// Noise of one place of an image in units of eps. Neighbours share a block of words: the last one is kept.
struct NoiseSource {
  RngState rng_state;
  Noise kind;
  NormalNoise normal;
  Philox words;
  int64_t example;
  uint32_t block;

  __device__ __forceinline__ NoiseSource(const RngState& rng_state, Noise kind, NormalNoise normal)
      : rng_state(rng_state), kind(kind), normal(normal), example(-1), block(0) {}

  __device__ __forceinline__ uint32_t word(int64_t of_example, uint32_t of_block, uint32_t lane) {
    if (of_example != example || of_block != block) {
      example = of_example;
      block = of_block;
      words = draw(rng_state.seed, rng_state.offset + static_cast<uint64_t>(example), block, Purpose::noise);
    }
    // Selected, not indexed: an indexed array would live in memory.
    return lane == 0 ? words.word[0] : lane == 1 ? words.word[1] : lane == 2 ? words.word[2] : words.word[3];
  }

  // A sign is a bit of a word: a block has 128 of them, and else four numbers.
  __device__ __forceinline__ float at(int64_t of_example, uint64_t place) {
    const uint32_t low = static_cast<uint32_t>(place);
    if (kind == Noise::sign)
      return sign_noise(word(of_example, static_cast<uint32_t>(place / 128), low / 32 % 4), low % 32);
    const uint32_t drawn = word(of_example, static_cast<uint32_t>(place / 4), low % 4);
    return kind == Noise::uniform ? uniform_noise(drawn) : normal_noise(drawn, normal);
  }
};

template <class T, int kWidth, bool kChannelsLast>
__device__ __forceinline__ void noise_pack(T* adv, const T* clean, int64_t pack, NoiseSource& noise,
                                           const Places<compute_t<T>>& places, int64_t plane) {
  using F = compute_t<T>;
  visit_pack<kWidth, kChannelsLast>(pack, places, [&](auto width, int64_t first, Cursor<F, kChannelsLast> at) {
    using P = Pack<T, decltype(width)::value>;
    P values = *reinterpret_cast<const P*>(clean + first);
    // The place within the channel, and within the image channel by channel.
    uint64_t within = static_cast<uint64_t>(at.place);
    if (kChannelsLast) within = divide(within, places.by_channels);
    uint64_t place = static_cast<uint64_t>(at.channel) * static_cast<uint64_t>(plane) + within;
#pragma unroll
    for (int i = 0; i < decltype(width)::value; ++i) {
      const F drawn = static_cast<F>(noise.at(at.example, place));
      store(values.value[i], clamp(load(values.value[i]) + at.bounds.eps * drawn, at.bounds.lower, at.bounds.upper));
      at.next(places);
      if (!kChannelsLast) ++place;
      else place = at.channel == 0 ? ++within : place + static_cast<uint64_t>(plane);
    }
    *reinterpret_cast<P*>(adv + first) = values;
  });
}

// adv and clean may be the same tensor: each pack is read before it is written, by one thread.
template <class T, int kWidth, bool kChannelsLast>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 2 ? 2 : 3)
    noise_kernel(T* adv, const T* clean, const Layout layout, const __grid_constant__ Places<compute_t<T>> places,
                 int64_t plane, RngState rng_state, Noise kind, NormalNoise normal) {
  NoiseSource noise(resolved(rng_state), kind, normal);
  for (int64_t pack = thread_index(); pack < layout.packs; pack += thread_count())
    noise_pack<T, kWidth, kChannelsLast>(adv, clean, layout.head + pack * kWidth, noise, places, plane);
  const int64_t tail = layout.head + layout.packs * kWidth, single = thread_index();
  if (single < layout.head) noise_pack<T, 1, kChannelsLast>(adv, clean, single, noise, places, plane);
  if (single < layout.total - tail) noise_pack<T, 1, kChannelsLast>(adv, clean, tail + single, noise, places, plane);
}

template <class T, int kWidth>
void launch(const NoiseStep& args, const Layout& layout, cudaStream_t stream) {
  const Step& step = args.step;
  T* adv = static_cast<T*>(step.adv);
  const T* clean = step.clean == nullptr ? adv : static_cast<const T*>(step.clean);
  const auto kernel = step.batch.channels_last ? noise_kernel<T, kWidth, true> : noise_kernel<T, kWidth, false>;
  FASTADV_LAUNCH(kernel, blocks_for(layout.packs > 0 ? layout.packs : 1), kThreads, stream, adv, clean, layout,
                 places<compute_t<T>>(step), step.batch.plane, args.rng_state, args.kind,
                 normal_noise_of(args.kind == Noise::truncated_normal));
}

}  // namespace

cudaError_t noise_step(const NoiseStep& args, cudaStream_t stream) {
  const Step& step = args.step;
  const int64_t total = step.batch.examples * step.batch.channels * step.batch.plane;
  if (total == 0) return cudaSuccess;
  with_type(step.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    Layout layout{total, 0, total};
    if (wide_layout<T>(total, step.adv, {step.clean}, &layout)) launch<T, kWide<T>>(args, layout, stream);
    else launch<T, 1>(args, layout, stream);
  });
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
