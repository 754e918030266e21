// Where a flat element of a batch lies, and the constants that hold there.
//
// Rows of 3 * 299 * 299 elements are odd, so packs of 16 bytes are laid over the flat tensor and may span examples: a
// cursor finds the place of a pack's first element by two multiplications and walks from there.
#pragma once

#include <initializer_list>
#include <type_traits>

#include "../math/fast_divide.h"
#include "../math/sign_step.h"
#include "element.cuh"

namespace fastadv::cuda {

template <class F>
struct SpaceTable {
  Bounds<F> bounds[kMaxChannels];  // alpha and eps are those of all examples, where they are numbers
  F std[kMaxChannels];
  double inverse_std[kMaxChannels];
  bool shared;  // the first is that of all channels
};

// The same of the compute type.
template <class F>
struct PerExampleOf {
  F value;
  const F* scale;  // [N] or null
};

struct Runs {
  int64_t run;  // elements that share an example and, if contiguous, a channel
  int32_t channels;
  Divisor by_run, by_channels;
};

inline Runs runs(const Batch& batch) {
  const int64_t run = batch.channels_last ? batch.channels * batch.plane : batch.plane;
  return {run, static_cast<int32_t>(batch.channels), make_divisor(static_cast<uint64_t>(run)),
          make_divisor(static_cast<uint64_t>(batch.channels))};
}

// What a kernel needs of a Step besides the pointers; a kernel parameter.
template <class F>
struct Places : Runs {
  PerExampleOf<F> alpha, eps;
  bool per_example;  // alpha or eps differs between examples
  SpaceTable<F> space;
};

template <class F>
Places<F> places(const Step& step) {
  const Batch& batch = step.batch;
  Places<F> result{runs(batch),
                   {static_cast<F>(step.alpha.value), static_cast<const F*>(step.alpha.scale)},
                   {static_cast<F>(step.eps.value), static_cast<const F*>(step.eps.scale)},
                   step.alpha.scale != nullptr || step.eps.scale != nullptr,
                   {}};
  result.space.shared = step.space.shared;
  for (int64_t c = 0; c < (step.space.shared ? 1 : batch.channels); ++c) {
    const F std = static_cast<F>(step.space.std[c]);
    result.space.std[c] = std;
    result.space.inverse_std[c] = 1.0 / static_cast<double>(std);
    result.space.bounds[c] = {result.alpha.value / std, result.eps.value / std, static_cast<F>(step.space.lower[c]),
                              static_cast<F>(step.space.upper[c])};
  }
  return result;
}

template <class F>
__device__ __forceinline__ F at_example(const PerExampleOf<F>& number, int64_t example) {
  return number.scale == nullptr ? number.value : number.value * number.scale[example];
}

// pixels / std. A division is a subroutine, with registers of its own. In float the product in double rounds to the
// same number: a quotient of two floats is never nearer than 2^-49 of itself to where rounding changes, and the product
// never further than 2^-52 from it.
__device__ __forceinline__ float in_input(float pixels, const SpaceTable<float>& space, int32_t c) {
  return static_cast<float>(static_cast<double>(pixels) * space.inverse_std[c]);
}
__device__ __forceinline__ double in_input(double pixels, const SpaceTable<double>& space, int32_t c) {
  return pixels / space.std[c];
}

// Values on the device cannot be refused without a wait: an alpha that is not finite, or an eps that is negative or
// NaN, counts as zero.
template <class F>
__device__ __forceinline__ F alpha_of(const Places<F>& places, int64_t example) {
  const F alpha = at_example(places.alpha, example);
  return alpha - alpha == F(0) ? alpha : F(0);
}
template <class F>
__device__ __forceinline__ F eps_of(const Places<F>& places, int64_t example) {
  const F eps = at_example(places.eps, example);
  return eps > F(0) ? eps : F(0);
}

// A place in the batch. next() stays within the run.
template <bool kChannelsLast>
struct Walk {
  int64_t example, place;  // place within the run
  int32_t channel;

  __device__ __forceinline__ Walk(const Runs& runs, int64_t element) {
    const int64_t index = static_cast<int64_t>(divide(static_cast<uint64_t>(element), runs.by_run));
    place = element - index * runs.run;
    const int64_t divided = kChannelsLast ? place : index;
    const int64_t quotient = static_cast<int64_t>(divide(static_cast<uint64_t>(divided), runs.by_channels));
    channel = static_cast<int32_t>(divided - quotient * runs.channels);
    example = kChannelsLast ? index : quotient;
  }

  __device__ __forceinline__ bool run_holds(int count, const Runs& runs) const { return runs.run - place >= count; }

  __device__ __forceinline__ void next(const Runs& runs) {
    ++place;
    if (kChannelsLast) channel = channel + 1 == runs.channels ? 0 : channel + 1;
  }
};

// A place in the batch and what holds there.
template <class F, bool kChannelsLast>
struct Cursor : Walk<kChannelsLast> {
  using Walk<kChannelsLast>::example, Walk<kChannelsLast>::channel;
  Bounds<F> bounds;

  __device__ __forceinline__ Cursor(const Places<F>& places, int64_t element) : Walk<kChannelsLast>(places, element) {
    enter_example(places);
    enter_channel(places);
  }

  __device__ __forceinline__ void next(const Places<F>& places) {
    Walk<kChannelsLast>::next(places);
    if (kChannelsLast) enter_channel(places);
  }

  // Where the constants of the channel are in the tables.
  __device__ __forceinline__ int32_t constant(const Places<F>& places) const {
    return places.space.shared ? 0 : channel;
  }

 private:
  F alpha, eps;  // of the example, in pixel values, where each has its own

  __device__ __forceinline__ void enter_example(const Places<F>& places) {
    if (places.alpha.scale != nullptr) alpha = alpha_of(places, example);
    if (places.eps.scale != nullptr) eps = eps_of(places, example);
  }

  __device__ __forceinline__ void enter_channel(const Places<F>& places) {
    const int32_t c = constant(places);
    bounds = places.space.bounds[c];
    if (places.alpha.scale != nullptr) bounds.alpha = in_input(alpha, places.space, c);
    if (places.eps.scale != nullptr) bounds.eps = in_input(eps, places.space, c);
  }
};

// body(width, first element, its At) for a pack of kWidth elements: at once where it lies within a run, and else, for
// the one pack in thousands that spans two, element by element, width being a std::integral_constant.
template <int kWidth, class At, class Where, class Body>
__device__ __forceinline__ void visit(int64_t first, const Where& where, Body&& body) {
  const At at(where, first);
  if constexpr (kWidth > 1) {
    if (!at.run_holds(kWidth, where)) {
#pragma unroll 1
      for (int i = 0; i < kWidth; ++i) body(std::integral_constant<int, 1>{}, first + i, At(where, first + i));
      return;
    }
  }
  body(std::integral_constant<int, kWidth>{}, first, at);
}

// The same with the constants that hold at the pack.
template <int kWidth, bool kChannelsLast, class F, class Body>
__device__ __forceinline__ void visit_pack(int64_t first, const Places<F>& places, Body&& body) {
  visit<kWidth, Cursor<F, kChannelsLast>>(first, places, static_cast<Body&&>(body));
}

// The flat elements of a tensor: `head` single elements up to a multiple of 16 bytes, then packs of kWidth.
struct Layout {
  int64_t total, head, packs;
};

// Whether the operands can be read 16 bytes at a time, and from which element on; null operands do not matter.
template <class T>
bool wide_layout(int64_t total, const void* first, std::initializer_list<const void*> others, Layout* layout) {
  const auto misaligned = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16; };
  for (const void* other : others)
    if (other != nullptr && misaligned(other) != misaligned(first)) return false;
  int64_t head = static_cast<int64_t>((16 - misaligned(first)) % 16 / sizeof(T));
  if (head > total) head = total;
  *layout = {total, head, (total - head) / kWide<T>};
  return true;
}

}  // namespace fastadv::cuda
