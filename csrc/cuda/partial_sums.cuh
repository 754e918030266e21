// Partial reductions of examples: a block each takes kChunk elements of one example, whose constants it looks up once
// for a channel, or for an element where channels lie last, and has several packs of 16 bytes under way.
#pragma once

#include <cstring>

#include "../math/normalized_step.h"
#include "reduce.cuh"
#include "step_kernel.cuh"

namespace fastadv::cuda {

// What holds at an element besides its example's factor.
template <class F>
struct Here {
  double inverse_std;
  F std, alpha, lower, upper;
};

// alpha: of the example, in pixel values, where each has its own.
template <class F>
__device__ __forceinline__ Here<F> here_in(const Places<F>& places, F alpha, int32_t channel) {
  const Bounds<F>& bounds = places.space.bounds[channel];
  return {places.space.inverse_std[channel], places.space.std[channel],
          places.alpha.scale == nullptr ? bounds.alpha : in_input(alpha, places.space, channel), bounds.lower,
          bounds.upper};
}

// Elements that lie beside each other, zeros until they are read: as words, which are fewer than elements.
template <class T, int kWidth>
struct LatePack {
  using Word = std::conditional_t<kWidth == 1, T, uint32_t>;
  Pack<Word, sizeof(T) * kWidth / sizeof(Word)> words;

  __device__ __forceinline__ LatePack() { memset(&words, 0, sizeof(words)); }
  __device__ __forceinline__ void read_at(const T* from) { words = *reinterpret_cast<const decltype(words)*>(from); }
  __device__ __forceinline__ Pack<T, kWidth> elements() const {
    Pack<T, kWidth> result;
    memcpy(&result, &words, sizeof(words));
    return result;
  }
};

// What a block reduces, and how: term(element, the example's factor, what holds there), and what the term reads besides
// the gradient: Term::kDistance adv and clean, Term::kMomentum previous.
template <class T, class Term, class Join>
struct Reduction {
  Operands<T> in;
  int64_t head;  // elements before the first pack of the flat tensor
  Term term;
  Join join;
  typename Term::Factor factor;
};

template <class T, int kWidth, class Term>
struct OperandPack {
  LatePack<T, kWidth> grad, adv, clean, previous;

  __device__ __forceinline__ void read_at(const Operands<T>& in, int64_t first) {
    grad.read_at(in.grad + first);
    if (!Term::kDistance) return;
    adv.read_at(in.adv + first);
    clean.read_at(in.clean + first);
    if (Term::kMomentum) previous.read_at(in.previous + first);
  }

  // next() is what holds at the first element, at the second, and so on.
  template <class Join, class Next>
  __device__ __forceinline__ double reduced(double value, const Reduction<T, Term, Join>& of, Next next) const {
    const Pack<T, kWidth> g = grad.elements(), a = adv.elements(), c = clean.elements(), b = previous.elements();
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const Element<compute_t<T>> all{load(a.value[i]), load(c.value[i]), load(g.value[i]), load(b.value[i])};
      value = of.join(value, of.term(all, of.factor, next()));
    }
    return value;
  }
};

// What the thread has of `count` elements of one example, from element `begin` on, joined to value. here_from(i) is a
// `next` for those from begin + i on.
template <int kWidth, class T, class Term, class Join, class HereFrom>
__device__ __forceinline__ double reduce_span(const Reduction<T, Term, Join>& of, int64_t begin, int32_t count,
                                              double value, HereFrom here_from) {
  constexpr int packs = !Term::kDistance ? 4 : sizeof(T) == 4 ? 2 : 1, stride = kThreads * kWidth;
  Operands<T> in{nullptr, nullptr, of.in.grad + begin, nullptr};
  if (Term::kDistance) in = {of.in.adv + begin, of.in.clean + begin, in.grad, nullptr};
  if (Term::kMomentum) in.previous = of.in.previous + begin;
  // The packs of the flat tensor that lie in the span, and the few elements before and behind them.
  int32_t from = static_cast<int32_t>((kWidth + (of.head - begin) % kWidth) % kWidth);
  if (from > count) from = count;
  const int32_t to = count - (count - from) % kWidth, thread = static_cast<int32_t>(threadIdx.x);
  for (int32_t round = from; round < to; round += packs * stride) {
    const int32_t first = round + thread * kWidth;
    OperandPack<T, kWidth, Term> read[packs];
#pragma unroll
    for (int p = 0; p < packs; ++p)
      if (first + p * stride < to) read[p].read_at(in, first + p * stride);
#pragma unroll
    for (int p = 0; p < packs; ++p) {
      // None for any thread; and where zeros that were not read would count, none for this one.
      if (Term::kMomentum ? first + p * stride >= to : p > 0 && round + p * stride >= to) break;
      value = read[p].reduced(value, of, here_from(first + p * stride));
    }
  }
  const auto single = [&](int32_t element) {
    OperandPack<T, 1, Term> read;
    read.read_at(in, element);
    value = read.reduced(value, of, here_from(element));
  };
  if (thread < from) single(thread);
  if (to + thread < count) single(to + thread);
  return value;
}

// The place of a block's chunk.
struct Chunk {
  int64_t example, start, stop;  // of the example's elements
};

// How examples are cut into chunks; a kernel parameter.
struct Chunks {
  int64_t elements, chunks, blocks;  // of an example, of an example, of the batch
  Divisor by_chunks;
  uint32_t inverse_channels;  // 2^32 over their number, where there are several, rounded up

  explicit Chunks(const Batch& batch)
      : elements(batch.channels * batch.plane),
        chunks((elements + kChunk - 1) / kChunk),
        blocks(batch.examples * chunks),
        by_chunks(make_divisor(static_cast<uint64_t>(chunks))),
        inverse_channels(static_cast<uint32_t>(0xFFFFFFFFu / batch.channels + 1)) {}

  __device__ __forceinline__ Chunk chunk(int64_t block) const {
    const int64_t example = static_cast<int64_t>(divide(static_cast<uint64_t>(block), by_chunks));
    const int64_t start = (block - example * chunks) * kChunk;
    return {example, start, start + kChunk < elements ? start + kChunk : elements};
  }
};

// Channel after channel, each a span of its own.
template <int kWidth, class T, class Term, class Join, class F>
__device__ __forceinline__ double reduce_planes(const Reduction<T, Term, Join>& of, const Chunks& chunks, Chunk chunk,
                                                F alpha, const Places<F>& places) {
  const int64_t origin = chunk.example * chunks.elements;
  int32_t channel = static_cast<int32_t>(divide(static_cast<uint64_t>(chunk.start), places.by_run));
  double value = 0.0;
  for (int64_t start = chunk.start; start < chunk.stop; ++channel) {
    const int64_t end = (channel + 1) * places.run, stop = end < chunk.stop ? end : chunk.stop;
    const Here<F> here = here_in(places, alpha, channel);
    value = reduce_span<kWidth>(of, origin + start, static_cast<int32_t>(stop - start), value,
                                [&](int32_t) { return [&] { return here; }; });
    start = stop;
  }
  return value;
}

// Channels take turns: the place of a pack's first element tells them.
template <int kWidth, class T, class Term, class Join, class F>
__device__ __forceinline__ double reduce_turns(const Reduction<T, Term, Join>& of, const Chunks& chunks, Chunk chunk,
                                               F alpha, const Places<F>& places) {
  const uint32_t channels = static_cast<uint32_t>(places.channels);
  const uint64_t start = static_cast<uint64_t>(chunk.start);
  const uint32_t before = static_cast<uint32_t>(start - divide(start, places.by_channels) * channels);
  const auto channel_at = [&](int32_t element) {
    const uint32_t place = before + static_cast<uint32_t>(element);  // few enough for the rounded inverse
    return place - static_cast<uint32_t>(uint64_t{place} * chunks.inverse_channels >> 32) * channels;
  };
  const auto after = [&](uint32_t channel) { return channel + 1 == channels ? 0 : channel + 1; };
  const auto here = [&](uint32_t channel) { return here_in(places, alpha, static_cast<int32_t>(channel)); };
  const int64_t begin = chunk.example * chunks.elements + chunk.start;
  const int32_t count = static_cast<int32_t>(chunk.stop - chunk.start);
  if (kWidth > 1 && channels == 3)  // whose constants stay in registers for a pack
    return reduce_span<kWidth>(of, begin, count, 0.0, [&](int32_t element) {
      const uint32_t first = channel_at(element), second = after(first);
      return [next = here(first), then = here(second), last = here(after(second))]() mutable {
        const Here<F> here = next;
        next = then;
        then = last;
        last = here;
        return here;
      };
    });
  return reduce_span<kWidth>(of, begin, count, 0.0, [&](int32_t element) {
    return [&, channel = channel_at(element)]() mutable {
      const uint32_t now = channel;
      channel = after(channel);
      return here(now);
    };
  });
}

// As many blocks of a multiprocessor as leave the registers for what is under way.
template <class T, class Term>
constexpr int kPartialBlocks =
    Term::kMomentum ? (sizeof(T) == 4 ? 3 : 2) : 5 - (Term::kDistance ? 1 : 0) - (sizeof(T) == 8 ? 1 : 0);

// partial[example * chunks + chunk] <- reduction of one chunk; a block each.
template <class T, int kWidth, bool kLast, class Term, class Join>
__global__ void __launch_bounds__(kThreads, kPartialBlocks<T, Term>)
    partial_kernel(const Operands<T> in, int64_t head, const Chunks chunks, Term term, Join join, double* partial,
                   const __grid_constant__ Places<compute_t<T>> places) {
  using F = compute_t<T>;
  for (int64_t block = blockIdx.x; block < chunks.blocks; block += gridDim.x) {
    const Chunk chunk = chunks.chunk(block);
    F alpha = 0;
    if (places.alpha.scale != nullptr) alpha = finite_or_zero(at_example(places.alpha, chunk.example));
    const Reduction<T, Term, Join> of{in, head, term, join, term.factor(chunk.example)};
    double value = kLast ? reduce_turns<kWidth>(of, chunks, chunk, alpha, places)
                         : reduce_planes<kWidth>(of, chunks, chunk, alpha, places);
    value = group_reduce<kThreads>(value, join);
    if (threadIdx.x == 0) partial[block] = value;
  }
}

}  // namespace fastadv::cuda
