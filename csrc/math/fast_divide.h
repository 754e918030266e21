// Division of an unsigned 64-bit number by one that is known before the launch, as a multiplication and shifts
// (Granlund and Montgomery, 1994): where a pixel lies takes two of them, and the GPU's own division is a subroutine.
#pragma once

#include <cstdint>

#include "macros.h"

namespace fastadv {

struct Divisor {
  uint64_t divisor, magic;
  uint32_t shift;  // ceil(log2 divisor)
};

static inline Divisor make_divisor(uint64_t divisor) {
  uint32_t shift = 0;
  while (shift < 63 && (uint64_t{1} << shift) < divisor) ++shift;
  // magic = floor(2^64 (2^shift - divisor) / divisor) + 1, by long division: the numerator has up to 127 bits.
  uint64_t magic = 0, remainder = (uint64_t{1} << shift) - divisor;
  for (int bit = 0; bit < 64; ++bit) {
    const bool carry = remainder >> 63;
    remainder <<= 1;
    magic <<= 1;
    if (carry || remainder >= divisor) {
      remainder -= divisor;
      magic |= 1;
    }
  }
  return {divisor, magic + 1, shift};
}

FASTADV_HOST_DEVICE uint64_t high_product(uint64_t a, uint64_t b) {
#if defined(__CUDA_ARCH__)
  return __umul64hi(a, b);
#else
  return static_cast<uint64_t>((static_cast<unsigned __int128>(a) * b) >> 64);
#endif
}

// number / divisor, for number < 2^63 and 0 < divisor < 2^63.
FASTADV_HOST_DEVICE uint64_t divide(uint64_t number, const Divisor& by) {
  const uint64_t high = high_product(by.magic, number);
  return (high + number) >> by.shift;
}

}  // namespace fastadv
