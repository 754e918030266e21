// Partial reductions of examples, in chunks of elements.
#pragma once

#include "../ops/normalized_step.h"
#include "spans.h"

namespace fastadv::cpu {

constexpr int64_t kPartialSums = 16;  // independent partial sums, added in a fixed order on every instruction set

// partial[chunk] <- reduction of term(first + i, i, example, constants) over the chunk's elements.
template <class F, class Term, class Join>
FASTADV_HOST_DEVICE void for_each_chunk(const Step& step, double* partial, int64_t begin, int64_t end, Term term,
                                        Join join) {
  const int64_t elements = step.batch.channels * step.batch.plane, chunks = chunks_per_example(step.batch);
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t origin = chunk / chunks * elements, start = chunk % chunks * kChunk;
    const int64_t stop = start + kChunk < elements ? start + kChunk : elements;
    double lane[kPartialSums] = {};
    for_each_span<F>(step, origin + start, origin + stop,
                     [&](int64_t example, int64_t first, int64_t count, const auto& constants) {
                       int64_t i = 0;
                       for (; i + kPartialSums <= count; i += kPartialSums)
                         for (int64_t l = 0; l < kPartialSums; ++l)
                           lane[l] = join(lane[l], term(first + i + l, example, constants, i + l));
                       for (; i < count; ++i) lane[0] = join(lane[0], term(first + i, example, constants, i));
                     });
    double total = 0.0;
    for (double value : lane) total = join(total, value);
    partial[chunk] = total;
  }
}

FASTADV_HOST_DEVICE double larger(double a, double b) { return a > b ? a : b; }
FASTADV_HOST_DEVICE double sum(double a, double b) { return a + b; }

}  // namespace fastadv::cpu
