// Pixels of long runs, tile by tile: those of a tile are looked up all at once where they are read as they lie, 4 or 8
// at a time, and else pack by pack, as in mirrored examples and at odd addresses.
#pragma once

#include <type_traits>

#include "pixel_table.cuh"
#include "tile.cuh"

namespace fastadv::cuda {

// A thread has 32 pixels of a tile, all of which it loads before it looks up the first. Not for float64, which is rare.
template <class T>
using PixelTiles = Tiles<kWide<T>, 32 / kWide<T>>;

// The rows of a run, to be mirrored; a kernel parameter. kPeriod channels lie last in a row.
struct TileRows {
  uint32_t length;  // elements, at least those of a pack
  Divisor by_length;
  SmallDivisor by_small_length;

  // The place in its row of the element `at` of a tile whose first element has the place `first`.
  __device__ __forceinline__ uint32_t place(uint32_t first, uint32_t at) const {
    return first + at - divide(first + at, by_small_length) * length;
  }

  static bool suit(int64_t length, int64_t pack) { return length >= pack && length < int64_t{1} << 30; }
};

inline TileRows tile_rows(int64_t length) {
  const auto small = static_cast<uint32_t>(length);
  return {small, make_divisor(static_cast<uint64_t>(length)), make_divisor(small)};
}

// Where a channel's table begins: in bytes, or the compiler adds channel and level up for each pixel.
template <class T>
__device__ __forceinline__ const T* table_of(const FromPixels& args, const T* tables, int32_t channel) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(tables);
  return reinterpret_cast<const T*>(bytes + (args.space.shared ? 0 : channel * kLevels * sizeof(T)));
}

// The pixels of a pack whose first element has this place and channel: what has place r and channel c comes from place
// length - kPeriod - r + 2 c of its row. The pack may extend into the next row, but no further.
template <int kWidth, int kPeriod>
__device__ __forceinline__ Pack<uint8_t, kWidth> read_mirrored(const uint8_t* first, uint32_t place, uint32_t channel,
                                                               uint32_t length) {
  Pack<uint8_t, kWidth> pixels;
  const int32_t across = static_cast<int32_t>(length - kPeriod - 2 * place);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const int32_t of_channel = static_cast<int32_t>(2 * ((channel + i) % kPeriod));
    const int32_t next_row = place + i >= length ? static_cast<int32_t>(2 * length) : 0;
    pixels.value[i] = first[across + of_channel + next_row - i];
  }
  return pixels;
}

// A tile and what it is made from.
template <class T, int kPeriod>
struct PixelTile : Tile<PixelTiles<T>> {
  using Base = Tile<PixelTiles<T>>;
  using Base::before, Base::example, Base::first, Base::kElements, Base::kWidth, Base::of_run;

  const FromPixels& args;
  const T* tables;  // [C or 1, 256]
  const TileRows& rows;
  bool mirrored, wide;
  uint32_t place;  // of the first element in its row, where it is mirrored

  __device__ __forceinline__ PixelTile(const FromPixels& args, const T* tables, const PixelTiles<T>& tiles,
                                       const TileRows& rows, bool wide, uint32_t index)
      : Base(tiles, index), args(args), tables(tables), rows(rows), wide(wide) {
    mirrored = args.mirrored != nullptr && args.mirrored[example] != 0;
    if (!mirrored) return;
    const uint64_t in_run = static_cast<uint64_t>(of_run) * kElements + rows.length * uint64_t{kWidth} - before;
    place = static_cast<uint32_t>(in_run - divide(in_run, rows.by_length) * rows.length);
  }

  __device__ __forceinline__ uint32_t channel_at(uint32_t at) const {
    return kPeriod == 1 ? this->channel : this->template last_channel<kPeriod>(at);
  }

  template <int width>
  __device__ __forceinline__ Pack<uint8_t, width> read_straight(uint32_t at) const {
    return *reinterpret_cast<const Pack<uint8_t, width>*>(args.pixels + first + at);
  }

  template <int width>
  __device__ __forceinline__ Pack<uint8_t, width> read_back(uint32_t at, uint32_t channel) const {
    return read_mirrored<width, kPeriod>(args.pixels + first + at, rows.place(place, at), channel, rows.length);
  }

  template <int width>
  __device__ __forceinline__ Pack<uint8_t, width> read(uint32_t at) const {
    if (mirrored) return read_back<width>(at, channel_at(at));
    if (wide) return read_straight<width>(at);
    Pack<uint8_t, width> pixels;
#pragma unroll
    for (int i = 0; i < width; ++i) pixels.value[i] = args.pixels[first + at + i];
    return pixels;
  }

  // kPacks packs from element `at` on, each kDistance elements behind the one before; read(at).
  template <int width, int kPacks, int kDistance, class Read>
  __device__ __forceinline__ void look_up(uint32_t at, Read&& read) const {
    const uint32_t channel = channel_at(at);
    Pack<uint8_t, width> pixels[kPacks];
#pragma unroll
    for (int p = 0; p < kPacks; ++p) pixels[p] = read(at + p * kDistance);
    const T* table[kPeriod];
#pragma unroll
    for (int i = 0; i < kPeriod; ++i)
      table[i] = table_of(args, tables, kPeriod == 1 ? channel : (channel + i) % kPeriod);
    // Packs of the tile: where elements are counted the compiler stores some packs element by element.
    auto* const images = reinterpret_cast<Pack<T, width>*>(static_cast<T*>(args.images) + first) + at / width;
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      Pack<T, width> made;
#pragma unroll
      for (int i = 0; i < width; ++i) made.value[i] = table[(p * kDistance + i) % kPeriod][pixels[p].value[i]];
      images[p * kDistance / width] = made;
    }
  }
};

// A tile pack by pack: at an end of its run, the packs that are the run's and the few elements before and behind them.
//
// The steps have a loop of their own for this (tile_step.cuh): through a shared one, with a body to call, nvcc gives
// some of theirs so many more registers that a multiprocessor holds a block less.
template <class T, int kPeriod>
__device__ __forceinline__ void look_up_each(const PixelTiles<T>& tiles, const PixelTile<T, kPeriod>& tile) {
  constexpr uint32_t width = PixelTiles<T>::kWidth;
  const auto look_up = [&](auto count, uint32_t at) {
    constexpr int kCount = decltype(count)::value;
    tile.template look_up<kCount, 1, 0>(at, [&](uint32_t from) { return tile.template read<kCount>(from); });
  };
  const uint32_t from = tile.from(), to = tile.to(tiles), packs_to = to - to % width;
#pragma unroll 1
  for (uint32_t at = threadIdx.x * width; at < packs_to; at += tiles.kDistance)
    if (at >= from) look_up(std::integral_constant<int, width>{}, at);
  const uint32_t head = (width - from) % width, thread = threadIdx.x;
  if (thread < head + to % width)
    look_up(std::integral_constant<int, 1>{}, thread < head ? from + thread : packs_to + (thread - head));
}

// Blocks that stay, because of their tables, and take one tile after another.
template <class T, int kPeriod>
__global__ void __launch_bounds__(kThreads, kFull)
    tile_lookup_kernel(const __grid_constant__ FromPixels args, const __grid_constant__ PixelTiles<T> tiles,
                       const __grid_constant__ TileRows rows, bool wide) {
  using Of = PixelTiles<T>;
  __shared__ T tables[kTables * kLevels];
  fill_tables(args, tables);
  const uint32_t at = threadIdx.x * Of::kWidth;
#pragma unroll 1
  for (uint32_t index = blockIdx.x; index < tiles.all; index += gridDim.x) {
    const PixelTile<T, kPeriod> tile(args, tables, tiles, rows, wide, index);
    if (tile.whole && wide && !tile.mirrored)
      tile.template look_up<Of::kWidth, Of::kPacks, Of::kDistance>(
          at, [&](uint32_t from) { return tile.template read_straight<Of::kWidth>(from); });
    else look_up_each(tiles, tile);
  }
}

}  // namespace fastadv::cuda
