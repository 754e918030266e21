// images <- the model's input for pixels: a table of 256 values a channel, made by each block in shared memory.
//
// A thread writes 16 bytes and reads as many pixels as they need, 4 for float: neighbours then read and write
// neighbouring bytes. Were 16 pixels read at once, each thread had 64 bytes to write, and a warp half-written sectors.
//
// Long runs are looked up tile by tile (tile_pixels.cuh). Short ones, channels that lie last and are not three, rows
// shorter than a pack, and float64 are walked as one flat tensor, where each thread finds the place of its pack.
#include "../ops/from_pixels.h"
#include "tile_pixels.cuh"

namespace fastadv::cuda {
namespace {

// What the kernel needs besides the constants; a kernel parameter.
struct Rows {
  Runs runs;
  Divisor by_width;
  bool wide;  // packs of pixels lie at multiples of their size
};

template <class T>
struct Lookup {
  const T* table;  // [C or 1, 256]

  __device__ __forceinline__ T operator()(const FromPixels& args, int32_t channel, uint8_t level) const {
    return table[(args.space.shared ? 0 : channel * kLevels) + level];
  }
};

template <class T>
struct Formula {
  __device__ __forceinline__ T operator()(const FromPixels& args, int32_t channel, uint8_t level) const {
    T value;
    store(value, input_of<compute_t<T>>(args, channel, level));
    return value;
  }
};

// The pixels of a pack that lies within a run, from the other end of their row where the example is mirrored.
template <int kWidth, bool kLast>
__device__ __forceinline__ Pack<uint8_t, kWidth> read_pixels(const FromPixels& args, const Rows& rows, int64_t first,
                                                             const Walk<kLast>& at) {
  const bool mirrored = args.mirrored != nullptr && args.mirrored[at.example] != 0;
  if (!mirrored && rows.wide) return *reinterpret_cast<const Pack<uint8_t, kWidth>*>(args.pixels + first);
  const int64_t step = kLast ? rows.runs.channels : 1;  // from a place to the next of its row
  const int64_t place =
      kLast ? static_cast<int64_t>(divide(static_cast<uint64_t>(at.place), rows.runs.by_channels)) : at.place;
  int64_t x = place - static_cast<int64_t>(divide(static_cast<uint64_t>(place), rows.by_width)) * args.width;
  int32_t channel = at.channel;
  Pack<uint8_t, kWidth> pixels;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    pixels.value[i] = args.pixels[first + i + (mirrored ? (args.width - 1 - 2 * x) * step : 0)];
    if (kLast && ++channel != rows.runs.channels) continue;
    channel = 0;
    x = x + 1 == args.width ? 0 : x + 1;
  }
  return pixels;
}

template <class T, int kWidth, bool kLast, class Value>
__device__ __forceinline__ void pixels_pack(const FromPixels& args, const Rows& rows, int64_t pack, Value value) {
  visit<kWidth, Walk<kLast>>(pack, rows.runs, [&](auto width, int64_t first, Walk<kLast> at) {
    constexpr int count = decltype(width)::value;
    const Pack<uint8_t, count> pixels = read_pixels<count, kLast>(args, rows, first, at);
    Pack<T, count> images;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      images.value[i] = value(args, at.channel, pixels.value[i]);
      at.next(rows.runs);
    }
    *reinterpret_cast<Pack<T, count>*>(static_cast<T*>(args.images) + first) = images;
  });
}

template <class T, bool kLast, class Value>
__device__ __forceinline__ void all_packs(const FromPixels& args, const Rows& rows, const Layout& layout, Value value) {
  constexpr int width = kWide<T>;
  for (int64_t pack = thread_index(); pack < layout.packs; pack += thread_count())
    pixels_pack<T, width, kLast>(args, rows, layout.head + pack * width, value);
  // The few elements before and behind the packs.
  const int64_t tail = layout.head + layout.packs * width, single = thread_index();
  if (single < layout.head) pixels_pack<T, 1, kLast>(args, rows, single, value);
  if (single < layout.total - tail) pixels_pack<T, 1, kLast>(args, rows, tail + single, value);
}

template <class T, bool kLast>
__global__ void __launch_bounds__(kThreads, kFull)
    lookup_kernel(const __grid_constant__ FromPixels args, const __grid_constant__ Rows rows, const Layout layout) {
  __shared__ T table[kTables * kLevels];
  fill_tables(args, table);
  all_packs<T, kLast>(args, rows, layout, Lookup<T>{table});
}

template <class T, bool kLast>
__global__ void __launch_bounds__(kThreads)
    formula_kernel(const __grid_constant__ FromPixels args, const __grid_constant__ Rows rows, const Layout layout) {
  all_packs<T, kLast>(args, rows, layout, Formula<T>{});
}

template <class T, bool kLast>
void launch_flat(const FromPixels& args, const Layout& layout, bool wide, cudaStream_t stream) {
  const Rows rows{runs(args.batch), make_divisor(static_cast<uint64_t>(args.width)), wide};
  const auto kernel = tables(args) <= kTables ? lookup_kernel<T, kLast> : formula_kernel<T, kLast>;
  FASTADV_LAUNCH(kernel, resident_blocks_for(layout.packs > 0 ? layout.packs : 1), kThreads, stream, args, rows,
                 layout);
}

// Whether the batch is kPeriod channels in turn, and its runs and rows are long enough for tiles.
template <class T, int kPeriod>
bool tiles_suit(const FromPixels& args) {
  const Batch& batch = args.batch;
  // A pixel's channel does not matter if all share a table and no example is mirrored.
  const bool in_turn = batch.channels_last && !(args.space.shared && args.mirrored == nullptr);
  return (in_turn ? batch.channels : 1) == kPeriod && tables(args) <= kTables && PixelTiles<T>::suit(batch) &&
         TileRows::suit(args.width * kPeriod, kWide<T>);
}

template <class T, int kPeriod>
void launch_tiles(const FromPixels& args, const Layout& layout, bool wide, cudaStream_t stream) {
  constexpr int width = kWide<T>;
  const PixelTiles<T> tiles(args.batch, static_cast<uint32_t>((width - layout.head) % width));
  const auto kernel = tile_lookup_kernel<T, kPeriod>;
  FASTADV_LAUNCH(kernel, resident_blocks_for(int64_t{tiles.all} * kThreads), kThreads, stream, args, tiles,
                 tile_rows(args.width * kPeriod), wide);
}

template <class T>
void launch(const FromPixels& args, int64_t total, cudaStream_t stream) {
  constexpr int width = kWide<T>;
  Layout layout{total, 0, total};
  wide_layout<T>(total, args.images, {}, &layout);
  const bool wide = reinterpret_cast<uintptr_t>(args.pixels + layout.head) % width == 0;
  if constexpr (sizeof(T) < 8) {
    if (tiles_suit<T, 1>(args)) return launch_tiles<T, 1>(args, layout, wide, stream);
    if (tiles_suit<T, 3>(args)) return launch_tiles<T, 3>(args, layout, wide, stream);
  }
  if (args.batch.channels_last) launch_flat<T, true>(args, layout, wide, stream);
  else launch_flat<T, false>(args, layout, wide, stream);
}

}  // namespace

cudaError_t from_pixels(const FromPixels& args, cudaStream_t stream) {
  const int64_t total = args.batch.examples * args.batch.channels * args.batch.plane;
  if (total == 0) return cudaSuccess;
  with_type(args.dtype, [&](auto* type) { launch<std::remove_pointer_t<decltype(type)>>(args, total, stream); });
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
