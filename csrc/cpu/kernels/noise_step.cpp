// adv <- clamp_range(clean + noise). The noise of an element is keyed by its place within the image, channel by
// channel, so that it is the same in both layouts; it is made in a small buffer and applied at the layout's stride.
#include "../../math/philox.h"
#include "../../math/truncated_normal.h"
#include "spans.h"

namespace fastadv::cpu::FASTADV_ISA {
namespace {

constexpr int64_t kBuffer = 1024;  // elements; a multiple of the 128 signs that one Philox block gives
constexpr int64_t kLanes = 16;     // blocks made side by side, to fill vectors

// Words [first, first + kBuffer * bits) of an example, `first` a multiple of a block.
FASTADV_HOST_DEVICE void fill_words(uint32_t* words, int64_t blocks, const Stream& stream, uint64_t example,
                                    uint32_t first_block) {
  for (int64_t base = 0; base < blocks; base += kLanes) {
    uint32_t lane[4][kLanes];
    for (int64_t l = 0; l < kLanes; ++l) {
      const Philox block =
          draw(stream.seed, stream.offset + example, first_block + static_cast<uint32_t>(base + l), Purpose::noise);
      for (int w = 0; w < 4; ++w) lane[w][l] = block.word[w];
    }
    for (int64_t l = 0; l < kLanes; ++l)
      for (int w = 0; w < 4; ++w) words[4 * (base + l) + w] = lane[w][l];
  }
}

// Noise in units of eps for elements [first, first + kBuffer) of an example; first is a multiple of kBuffer.
FASTADV_HOST_DEVICE void fill_noise(float* noise, Noise kind, HalfNormal normal, const Stream& stream, uint64_t example,
                                    int64_t first) {
  uint32_t words[kBuffer];
  if (kind == Noise::sign) {
    constexpr int64_t blocks = kBuffer / 128;
    fill_words(words, blocks < kLanes ? kLanes : blocks, stream, example, static_cast<uint32_t>(first / 128));
    for (int64_t i = 0; i < kBuffer; ++i) noise[i] = (words[i / 32] >> (i % 32)) & 1u ? -1.0f : 1.0f;
    return;
  }
  fill_words(words, kBuffer / 4, stream, example, static_cast<uint32_t>(first / 4));
  if (kind == Noise::uniform) {
    for (int64_t i = 0; i < kBuffer; ++i) {
      const Fraction fraction = to_fraction(words[i]);
      noise[i] = fraction.sign * fraction.value;
    }
    return;
  }
  for (int64_t i = 0; i < kBuffer; ++i) {
    const Fraction fraction = to_fraction(words[i]);
    noise[i] = fraction.sign * (0.5f * quantile(normal, fraction));
  }
}

}  // namespace

void noise_step(const NoiseStep& args, int64_t begin, int64_t end) {
  const Step& step = args.step;
  const Batch& batch = step.batch;
  const HalfNormal normal = half_normal(2.0);  // std 0.5 eps on [-eps, eps]: two standard deviations
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
      for (int64_t buffer = from / kBuffer * kBuffer; buffer < to; buffer += kBuffer) {
        float noise[kBuffer];
        fill_noise(noise, args.kind, normal, args.stream, static_cast<uint64_t>(example), buffer);
        const int64_t first = buffer < from ? from : buffer, last = buffer + kBuffer < to ? buffer + kBuffer : to;
        for (int64_t e = first; e < last; ++e) {
          const int64_t i = origin + (e - from) * stride;
          store(adv[i], clamp(load(clean[i]) + at.eps * static_cast<F>(noise[e - buffer]), at.lower, at.upper));
        }
      }
    }
  });
}

void truncated_normal(const EpsSample& args, int64_t begin, int64_t end) {
  const HalfNormal normal = half_normal(args.upper / args.sigma);
  const float sigma = static_cast<float>(args.sigma), upper = static_cast<float>(args.upper);
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    T* eps = static_cast<T*>(args.eps);  // [N]
    for (int64_t i = begin; i < end; ++i) {
      const Philox block = draw(args.stream.seed, args.stream.offset + static_cast<uint64_t>(i), 0, Purpose::eps);
      const float drawn = sigma * quantile(normal, to_fraction(block.word[0]));
      store(eps[i], static_cast<compute_t<T>>(drawn < upper ? drawn : upper));
    }
  });
}

}  // namespace fastadv::cpu::FASTADV_ISA
