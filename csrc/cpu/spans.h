// Walks a range of a batch in spans whose elements take their constants by one rule, so that each kernel writes its
// inner loop once for both layouts.
#pragma once

#include "../math/sign_step.h"
#include "element.h"

namespace fastadv::cpu {

// How many elements come before the first that begins a cache line. A kernel handles them apart: images of 3 * 299 *
// 299 floats start anywhere, and otherwise each of their vectors would touch two lines.
template <class T>
FASTADV_HOST_DEVICE int64_t to_cache_line(const T* data, int64_t count) {
  constexpr int64_t line = 64 / sizeof(T);
  const int64_t place = static_cast<int64_t>(reinterpret_cast<uintptr_t>(data) / sizeof(T)) % line;
  return place == 0 ? 0 : line - place < count ? line - place : count;
}

template <class F>
FASTADV_HOST_DEVICE F at_example(const PerExample& number, int64_t example) {
  const F* scale = static_cast<const F*>(number.scale);
  return static_cast<F>(number.value) * (scale == nullptr ? F(1) : scale[example]);
}

// The constants of one channel of one example, in the model's input.
template <class F>
FASTADV_HOST_DEVICE Bounds<F> bounds(const Step& step, int64_t example, int64_t channel) {
  const int64_t c = step.space.shared ? 0 : channel;
  const F std = static_cast<F>(step.space.std[c]);
  return {at_example<F>(step.alpha, example) / std, at_example<F>(step.eps, example) / std,
          static_cast<F>(step.space.lower[c]), static_cast<F>(step.space.upper[c])};
}

// Constants of a span within one channel: the same for every element.
template <class F>
struct Constant {
  Bounds<F> value;
  F std;
  double inverse_std;
};
template <class F>
FASTADV_HOST_DEVICE Bounds<F> bounds_at(const Constant<F>& constant, int64_t) {
  return constant.value;
}
template <class F>
FASTADV_HOST_DEVICE F std_at(const Constant<F>& constant, int64_t) {
  return constant.std;
}
template <class F>
FASTADV_HOST_DEVICE double inverse_std_at(const Constant<F>& constant, int64_t) {
  return constant.inverse_std;
}

// Constants of a channels_last span: they repeat over the channels. Sixteen repetitions fill whole vectors.
constexpr int64_t kRepetitions = 16;
template <class F>
struct Repeated {
  F alpha[kMaxChannels * kRepetitions], eps[kMaxChannels * kRepetitions];
  F lower[kMaxChannels * kRepetitions], upper[kMaxChannels * kRepetitions], std[kMaxChannels * kRepetitions];
  double inverse_std[kMaxChannels * kRepetitions];
};
template <class F>
struct RepeatedFrom {
  const Repeated<F>* constants;
  int64_t phase;
};
template <class F>
FASTADV_HOST_DEVICE Bounds<F> bounds_at(const RepeatedFrom<F>& from, int64_t i) {
  const int64_t j = from.phase + i;
  return {from.constants->alpha[j], from.constants->eps[j], from.constants->lower[j], from.constants->upper[j]};
}
template <class F>
FASTADV_HOST_DEVICE F std_at(const RepeatedFrom<F>& from, int64_t i) {
  return from.constants->std[from.phase + i];
}
template <class F>
FASTADV_HOST_DEVICE double inverse_std_at(const RepeatedFrom<F>& from, int64_t i) {
  return from.constants->inverse_std[from.phase + i];
}

template <class F>
FASTADV_HOST_DEVICE void fill(Repeated<F>& constants, const Step& step, int64_t example) {
  const int64_t channels = step.batch.channels;
  for (int64_t j = 0; j < channels * kRepetitions; ++j) {
    const Bounds<F> value = bounds<F>(step, example, j % channels);
    constants.alpha[j] = value.alpha;
    constants.eps[j] = value.eps;
    constants.lower[j] = value.lower;
    constants.upper[j] = value.upper;
    constants.std[j] = static_cast<F>(step.space.std[j % channels]);
    constants.inverse_std[j] = 1.0 / static_cast<double>(constants.std[j]);
  }
}

// visit(example, first element, number of elements, constants) over the elements [begin, end) of the batch.
template <class F, class Visit>
FASTADV_HOST_DEVICE void for_each_span(const Step& step, int64_t begin, int64_t end, Visit visit) {
  const Batch& batch = step.batch;
  const bool repeat = batch.channels_last && batch.channels > 1;
  const int64_t run = repeat ? batch.channels * batch.plane : batch.plane;
  while (begin < end) {
    const int64_t index = begin / run, stop = (index + 1) * run < end ? (index + 1) * run : end;
    if (!repeat) {
      const int64_t channel = index % batch.channels, example = index / batch.channels;
      const F std = static_cast<F>(step.space.std[channel]);
      visit(example, begin, stop - begin, Constant<F>{bounds<F>(step, example, channel), std, 1.0 / std});
      begin = stop;
      continue;
    }
    Repeated<F> constants;
    fill(constants, step, index);
    const int64_t period = batch.channels * kRepetitions;
    int64_t phase = begin % batch.channels;
    while (begin < stop) {
      const int64_t count = period - phase < stop - begin ? period - phase : stop - begin;
      visit(index, begin, count, RepeatedFrom<F>{&constants, phase});
      begin += count;
      phase = 0;
    }
  }
}

}  // namespace fastadv::cpu
