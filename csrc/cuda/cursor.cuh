// Where a flat element of a batch lies, and the constants that hold there.
//
// Rows of 3 * 299 * 299 elements are odd, so packs of 16 bytes are laid over the flat tensor and may span examples: a
// cursor finds the place of a pack's first element by two multiplications and walks from there.
#pragma once

#include "../math/fast_divide.h"
#include "../math/sign_step.h"
#include "element.cuh"

namespace fastadv::cuda {

template <class F>
struct SpaceTable {
  F std[kMaxChannels];
  Bounds<F> bounds[kMaxChannels];  // alpha and eps are those of all examples, where they are numbers
  bool shared;                     // the first is that of all channels
};

template <class F>
struct Amount {
  F value;
  const F* per_example;  // [N] or null
};

// What a kernel needs of a Step besides the pointers; a kernel parameter.
template <class F>
struct Places {
  int64_t run;  // elements that share an example and, if contiguous, a channel
  int64_t channels;
  Divisor by_run, by_channels;
  Amount<F> alpha, eps;
  SpaceTable<F> space;
};

template <class F>
Places<F> places(const Step& step) {
  const Batch& batch = step.batch;
  const int64_t run = batch.channels_last ? batch.channels * batch.plane : batch.plane;
  Places<F> result{run,
                   batch.channels,
                   make_divisor(static_cast<uint64_t>(run)),
                   make_divisor(static_cast<uint64_t>(batch.channels)),
                   {static_cast<F>(step.alpha.value), static_cast<const F*>(step.alpha.per_example)},
                   {static_cast<F>(step.eps.value), static_cast<const F*>(step.eps.per_example)},
                   {}};
  result.space.shared = step.space.shared;
  for (int64_t c = 0; c < kMaxChannels; ++c) {
    const F std = static_cast<F>(step.space.std[c]);
    result.space.std[c] = std;
    result.space.bounds[c] = {result.alpha.value / std, result.eps.value / std, static_cast<F>(step.space.lower[c]),
                              static_cast<F>(step.space.upper[c])};
  }
  return result;
}

template <class F>
__device__ __forceinline__ F amount(const Amount<F>& amount, int64_t example) {
  return amount.per_example == nullptr ? amount.value : amount.value * amount.per_example[example];
}

template <class F, bool kChannelsLast>
struct Cursor {
  int64_t example, place;  // place within the run
  int32_t channel;
  F alpha, eps;  // of the example, in pixel values, where each has its own
  F std;
  Bounds<F> bounds;

  __device__ __forceinline__ Cursor(const Places<F>& places, int64_t element) {
    const int64_t index = static_cast<int64_t>(divide(static_cast<uint64_t>(element), places.by_run));
    place = element - index * places.run;
    const int64_t divided = kChannelsLast ? place : index;
    const int64_t quotient = static_cast<int64_t>(divide(static_cast<uint64_t>(divided), places.by_channels));
    channel = static_cast<int32_t>(divided - quotient * places.channels);
    example = kChannelsLast ? index : quotient;
    enter_example(places);
    enter_channel(places);
  }

  __device__ __forceinline__ void next(const Places<F>& places) {
    ++place;
    const bool over = place == places.run;
    if (over) place = 0;
    if (!kChannelsLast && !over) return;
    const bool wrapped = ++channel == places.channels;
    if (wrapped) channel = 0;
    if (kChannelsLast ? over : wrapped) {
      ++example;
      enter_example(places);
    }
    enter_channel(places);
  }

 private:
  // Values on the device cannot be refused without a wait: an alpha that is not finite, or an eps that is negative or
  // NaN, counts as zero.
  __device__ __forceinline__ void enter_example(const Places<F>& places) {
    if (places.alpha.per_example != nullptr) {
      alpha = amount(places.alpha, example);
      alpha = alpha - alpha == F(0) ? alpha : F(0);
    }
    if (places.eps.per_example != nullptr) {
      eps = amount(places.eps, example);
      eps = eps > F(0) ? eps : F(0);
    }
  }

  __device__ __forceinline__ void enter_channel(const Places<F>& places) {
    const int32_t c = places.space.shared ? 0 : channel;
    std = places.space.std[c];
    bounds = places.space.bounds[c];
    if (places.alpha.per_example != nullptr) bounds.alpha = alpha / std;
    if (places.eps.per_example != nullptr) bounds.eps = eps / std;
  }
};

// The flat elements of a tensor as packs of kWidth behind `head` single elements, which bring them to 16 bytes.
struct Layout {
  int64_t total, head, packs;
};

// Whether the operands can be read 16 bytes at a time, and from which element on; null operands do not matter.
template <class T>
bool wide_layout(int64_t total, const void* a, const void* b, const void* c, Layout* layout) {
  const auto misaligned = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16; };
  for (const void* other : {b, c})
    if (other != nullptr && misaligned(other) != misaligned(a)) return false;
  int64_t head = static_cast<int64_t>((16 - misaligned(a)) % 16 / sizeof(T));
  if (head > total) head = total;
  *layout = {total, head, (total - head) / kWide<T>};
  return true;
}

}  // namespace fastadv::cuda
