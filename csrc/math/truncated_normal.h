// The truncated normal by its inverse distribution function: one word a draw, no rejection, no loop.
//
// Only +, *, comparisons, sqrt and bit operations, compiled without contraction, so that every back end computes the
// same bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "macros.h"
#include "philox.h"

namespace fastadv {

// One word as a sign and a fraction of (0, 1) with its complement; the complement keeps the tail exact where the
// fraction itself would round to 1.
struct Fraction {
  float sign, value, complement;
};

FASTADV_HOST_DEVICE Fraction to_fraction(uint32_t word) {
  const int32_t magnitude = static_cast<int32_t>(word >> 1);
  constexpr float unit = 1.0f / 2147483648.0f;  // 2^-31
  return {(word & 1) ? -1.0f : 1.0f, (static_cast<float>(magnitude) + 0.5f) * unit,
          (static_cast<float>(0x7FFFFFFF - magnitude) + 0.5f) * unit};
}

// Natural logarithm of a positive normal number: exponent and mantissa of [sqrt(1/2), sqrt(2)), then the minimax
// polynomial of Cephes' logf. Own arithmetic because libm's and the GPU's differ in the last bit.
FASTADV_HOST_DEVICE float log_positive(float x) {
  int32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  const int32_t exponent = (bits - 0x3F3504F3) >> 23;
  bits -= exponent * (1 << 23);
  float mantissa;
  memcpy(&mantissa, &bits, sizeof(mantissa));
  const float e = static_cast<float>(exponent), f = mantissa - 1.0f, ff = f * f;
  float p = 7.0376836292e-2f;
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  p = p * f * ff - 2.12194440e-4f * e - 0.5f * ff;
  return (f + p) + 0.693359375f * e;
}

// erfinv(p) given q = 1 - p, as p times a polynomial of w = -log((1 - p) (1 + p)), or of its square root in the tail:
// the method of Giles ("Approximating the erfinv function", 2010) and his coefficients for the centre; those of the
// tail are a minimax fit up to w = 22.3, which the largest of 2^31 fractions needs. Relative error below 4e-7.
FASTADV_HOST_DEVICE float erfinv(float p, float q) {
  const float w = -log_positive(q * (1.0f + p));
  const float c = w - 2.5f;
  float central = 2.81022636e-08f;
  central = central * c + 3.43273939e-07f;
  central = central * c - 3.5233877e-06f;
  central = central * c - 4.39150654e-06f;
  central = central * c + 0.00021858087f;
  central = central * c - 0.00125372503f;
  central = central * c - 0.00417768164f;
  central = central * c + 0.246640727f;
  central = central * c + 1.50140941f;
  const float t = sqrtf(w > 5.0f ? w : 5.0f) - 3.4f;
  float tail = 3.77540127e-05f;
  tail = tail * t - 2.03885302e-05f;
  tail = tail * t - 0.000302921660f;
  tail = tail * t + 0.000733658264f;
  tail = tail * t - 0.000988322543f;
  tail = tail * t + 0.00144105544f;
  tail = tail * t - 0.00257766363f;
  tail = tail * t + 0.00398119260f;
  tail = tail * t + 1.00664687f;
  tail = tail * t + 3.23478341f;
  return p * (w < 5.0f ? central : tail);
}

// |N(0, 1)| truncated to [0, bound]; the host prepares the constants once.
struct HalfNormal {
  float bound, mass, outside;  // mass = erf(bound / sqrt 2), outside = 1 - mass
};

static inline HalfNormal half_normal(double bound) {
  const double x = bound * 0.70710678118654752440;
  return {static_cast<float>(bound), static_cast<float>(std::erf(x)), static_cast<float>(std::erfc(x))};
}

// The quantile: x with erf(x / sqrt 2) = fraction * mass.
FASTADV_HOST_DEVICE float quantile(HalfNormal normal, Fraction fraction) {
  const float p = fraction.value * normal.mass;
  const float q = fraction.complement + fraction.value * normal.outside;
  const float x = 1.41421356f * erfinv(p, q);
  return x < normal.bound ? x : normal.bound;
}

// |N(0, sigma)| truncated to [0, upper]; the host prepares the constants once.
struct TruncatedNormal {
  double sigma, upper;
  HalfNormal normal;
};

static inline TruncatedNormal truncated_normal_of(double sigma, double upper) {
  // Long before upper / sigma is too small for a float, the distribution on [0, upper] is uniform.
  const double most = upper * (1 << 20), finite = sigma < most ? sigma : most;
  return {finite, upper, half_normal(upper / finite)};
}

FASTADV_HOST_DEVICE float truncated_eps(const RngState& rng_state, uint64_t row, const TruncatedNormal& of) {
  const uint32_t word = draw(rng_state.seed, rng_state.offset + row, 0, Purpose::eps).word[0];
  const double drawn = of.sigma * static_cast<double>(quantile(of.normal, to_fraction(word)));
  return static_cast<float>(drawn < of.upper ? drawn : of.upper);
}

}  // namespace fastadv
