// What a random word becomes: noise in units of eps, or a class. Draws of eps are in truncated_normal.h.
#pragma once

#include "philox.h"
#include "truncated_normal.h"

namespace fastadv {

// Signs are bits: element i of an example takes bit i % 32 of its word i / 32.
FASTADV_HOST_DEVICE float sign_noise(uint32_t word, int bit) { return (word >> bit) & 1u ? -1.0f : 1.0f; }

// Uniform on [-1, 1].
FASTADV_HOST_DEVICE float uniform_noise(uint32_t word) {
  const Fraction fraction = to_fraction(word);
  return fraction.sign * fraction.value;
}

// Normal noise, truncated to a number of standard deviations.
struct NormalNoise {
  HalfNormal half;
  float deviation;
};

// Truncated: of standard deviation 0.5 on [-1, 1]. Otherwise of 1, to the six deviations that a word can tell apart.
static inline NormalNoise normal_noise_of(bool truncated) {
  return truncated ? NormalNoise{half_normal(2.0), 0.5f} : NormalNoise{half_normal(6.0), 1.0f};
}

FASTADV_HOST_DEVICE float normal_noise(uint32_t word, NormalNoise normal) {
  const Fraction fraction = to_fraction(word);
  return fraction.sign * (normal.deviation * quantile(normal.half, fraction));
}

// Uniform over all classes but the predicted one; if there is only one class, that one.
FASTADV_HOST_DEVICE int64_t random_class(const RngState& rng_state, uint64_t row, int64_t classes, int64_t predicted) {
  if (classes == 1) return 0;
  const uint32_t word = draw(rng_state.seed, rng_state.offset + row, 0, Purpose::target).word[0];
  const int64_t drawn = uniform_below(word, static_cast<uint32_t>(classes - 1));
  return drawn + (drawn >= predicted ? 1 : 0);
}

}  // namespace fastadv
