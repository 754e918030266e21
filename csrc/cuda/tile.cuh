// A block's share of a long run.
//
// A run is what shares an example and, if contiguous, a channel. Blocks take tiles of runs, so that where a tile lies
// is found once for all of its packs and by all threads alike. Rows of 3 * 299 * 299 elements are odd, so a run may
// begin and end within a pack: its tiles begin at multiples of 16 bytes nevertheless, the first of them before the run.
#pragma once

#include "cursor.cuh"
#include "launch.cuh"

namespace fastadv::cuda {

// The tiles of a batch, of kPacks packs of kWidth elements for each thread; a kernel parameter.
template <int width, int packs>
struct Tiles {
  static constexpr uint32_t kWidth = width, kPacks = packs;
  static constexpr uint32_t kDistance = kThreads * kWidth;  // elements from a thread's pack to its next
  static constexpr uint32_t kElements = kDistance * kPacks;

  int64_t run;           // elements
  uint32_t of_run, all;  // tiles, fewer than 2^31 in any memory that there is
  uint32_t inner;        // the first tiles of a run, which end within it wherever they begin
  uint32_t misaligned;   // elements between the multiple of 16 bytes before the tensor and its first
  SmallDivisor by_tiles, by_channels;

  Tiles(const Batch& batch, uint32_t misaligned) : run(run_of(batch)), misaligned(misaligned) {
    const int64_t channels = batch.channels_last ? 1 : batch.channels;
    // The most elements of a run's first pack that are not its own.
    const int64_t before = run % kWidth == 0 ? misaligned : kWidth - 1;
    of_run = static_cast<uint32_t>((before + run + kElements - 1) / kElements);
    all = static_cast<uint32_t>(batch.examples * channels * of_run);
    inner = static_cast<uint32_t>(run / kElements);
    by_tiles = make_divisor(of_run);
    by_channels = make_divisor(static_cast<uint32_t>(channels));
  }

  // Whether runs are long enough: of fewer than two tiles, most threads would find none that is whole.
  static bool suit(const Batch& batch) { return run_of(batch) >= 2 * kElements; }

  static int64_t run_of(const Batch& batch) { return (batch.channels_last ? batch.channels : 1) * batch.plane; }
};

// Where a tile lies. Its elements are counted from `first`, which is a multiple of 16 bytes.
template <class Tiles>
struct Tile {
  static constexpr uint32_t kWidth = Tiles::kWidth, kElements = Tiles::kElements;

  int64_t example, first;
  uint32_t channel;  // of the run; 0 where channels lie last
  uint32_t of_run;   // the tile's number in its run
  uint32_t before;   // elements of the run's first pack that are not its own
  bool whole;        // all of the tile's elements are the run's

  __device__ __forceinline__ Tile(const Tiles& tiles, uint32_t index) {
    const uint32_t run = divide(index, tiles.by_tiles);
    of_run = index - run * tiles.of_run;
    const int64_t begin = static_cast<int64_t>(run) * tiles.run;
    before = (static_cast<uint32_t>(begin) + tiles.misaligned) % kWidth;
    first = begin + static_cast<int64_t>(of_run) * kElements - before;
    whole = of_run < tiles.inner && (of_run > 0 || before == 0);
    const uint32_t outer = divide(run, tiles.by_channels);
    channel = run - outer * tiles.by_channels.divisor;
    example = outer;
  }

  // The elements [from, to) of the tile are the run's.
  __device__ __forceinline__ uint32_t from() const { return of_run == 0 ? before : 0; }
  __device__ __forceinline__ uint32_t to(const Tiles& tiles) const {
    // None of the last tile's, where only a run that begins later reaches into it.
    const int64_t left = tiles.run + before - static_cast<int64_t>(of_run) * kElements;
    return left <= 0 ? 0 : left < kElements ? static_cast<uint32_t>(left) : kElements;
  }

  // The channel of an element if this many channels lie last.
  template <uint32_t kChannels>
  __device__ __forceinline__ uint32_t last_channel(uint32_t element) const {
    return (of_run * (kElements % kChannels) + (kChannels * kWidth - before) + element) % kChannels;
  }
};

}  // namespace fastadv::cuda
