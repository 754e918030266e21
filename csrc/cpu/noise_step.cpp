// adv <- clamp_range(clean + noise). The noise of an element is keyed by its place within the image, channel by
// channel, so that it is the same in both layouts; it is made in a small buffer and applied at the layout's stride.
#include "../ops/noise_step.h"

#include "../math/noise.h"
#include "spans.h"

namespace fastadv::cpu::FASTADV_ISA {
namespace {

constexpr int64_t kBuffer = 1024;  // elements whose noise is made at once
constexpr int64_t kLanes = 16;     // Philox blocks made side by side, to fill vectors
constexpr int64_t kGroup = 128;    // elements that begin a block of either kind, four words or 128 signs

// Words of an example from the given block on; at least `words`, and room for a multiple of 4 * kLanes.
FASTADV_HOST_DEVICE void fill_words(uint32_t* word, int64_t words, const RngState& rng_state, uint64_t example,
                                    uint32_t first_block) {
  for (int64_t base = 0; base < words; base += 4 * kLanes) {
    uint32_t lane[4][kLanes];
    for (int64_t l = 0; l < kLanes; ++l) {
      const Philox block = draw(rng_state.seed, rng_state.offset + example,
                                first_block + static_cast<uint32_t>(base / 4 + l), Purpose::noise);
      for (int w = 0; w < 4; ++w) lane[w][l] = block.word[w];
    }
    for (int64_t l = 0; l < kLanes; ++l)
      for (int w = 0; w < 4; ++w) word[base + 4 * l + w] = lane[w][l];
  }
}

// Noise in units of eps for elements [first, first + count) of an example; first is a multiple of kGroup.
FASTADV_HOST_DEVICE void fill_noise(float* noise, int64_t count, Noise kind, NormalNoise normal,
                                    const RngState& rng_state, uint64_t example, int64_t first) {
  uint32_t word[kBuffer];
  if (kind == Noise::sign) {
    fill_words(word, (count + 31) / 32, rng_state, example, static_cast<uint32_t>(first / 128));
    for (int64_t i = 0; i < count; ++i) noise[i] = sign_noise(word[i / 32], i % 32);
    return;
  }
  fill_words(word, count, rng_state, example, static_cast<uint32_t>(first / 4));
  if (kind == Noise::uniform) {
    for (int64_t i = 0; i < count; ++i) noise[i] = uniform_noise(word[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) noise[i] = normal_noise(word[i], normal);
  }
}

}  // namespace

void noise_step(const NoiseStep& args, int64_t begin, int64_t end) {
  const Step& step = args.step;
  const Batch& batch = step.batch;
  const RngState rng_state = resolved(args.rng_state);
  const NormalNoise normal = normal_noise_of(args.kind == Noise::truncated_normal);
  const int64_t stride = batch.channels_last ? batch.channels : 1;
  with_type(step.dtype, [&](auto type) {
    using T = decltype(type);
    using F = compute_t<T>;
    T* adv = static_cast<T*>(step.adv);                                                // [N, C, ...]
    const T* clean = step.clean == nullptr ? adv : static_cast<const T*>(step.clean);  // [N, C, ...]
    for (int64_t index = begin; index < end; ++index) {
      const int64_t example = index / batch.channels, channel = index % batch.channels;
      const int64_t origin =
          batch.channels_last ? example * batch.channels * batch.plane + channel : index * batch.plane;
      const Bounds<F> at = bounds<F>(step, example, channel);
      const int64_t from = channel * batch.plane, to = from + batch.plane;  // places within the image
      for (int64_t buffer = from / kGroup * kGroup; buffer < to; buffer += kBuffer) {
        float noise[kBuffer];
        const int64_t first = buffer < from ? from : buffer, last = buffer + kBuffer < to ? buffer + kBuffer : to;
        fill_noise(noise, last - buffer, args.kind, normal, rng_state, static_cast<uint64_t>(example), buffer);
        for (int64_t e = first; e < last; ++e) {
          const int64_t i = origin + (e - from) * stride;
          store(adv[i], clamp(load(clean[i]) + at.eps * static_cast<F>(noise[e - buffer]), at.lower, at.upper));
        }
      }
    }
  });
}

}  // namespace fastadv::cpu::FASTADV_ISA
