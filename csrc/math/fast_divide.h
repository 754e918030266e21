// Division of an unsigned number by one known before the launch, as a multiplication and a shift (Granlund and
// Montgomery, 1994). Locating a pixel takes two divisions, and the GPU's own is a subroutine.
#pragma once

#include <cstdint>

#include "macros.h"

namespace fastadv {

// Of numbers of 64 or 32 bits.
template <class N>
struct DivisorOf {
  N divisor, magic;
  uint32_t shift;  // ceil(log2 divisor)
};
using Divisor = DivisorOf<uint64_t>;
using SmallDivisor = DivisorOf<uint32_t>;

template <class N>
DivisorOf<N> make_divisor(N divisor) {
  constexpr uint32_t bits = 8 * sizeof(N);
  uint32_t shift = 0;
  while (shift < bits - 1 && (N{1} << shift) < divisor) ++shift;
  // magic = floor(2^bits (2^shift - divisor) / divisor) + 1, by long division: the numerator has twice the bits.
  N magic = 0, remainder = (N{1} << shift) - divisor;
  for (uint32_t bit = 0; bit < bits; ++bit) {
    const bool carry = remainder >> (bits - 1);
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
FASTADV_HOST_DEVICE uint32_t high_product(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32);
}

// number / divisor. Both are positive and below half of the range of N; the number may be 0.
template <class N>
FASTADV_HOST_DEVICE N divide(N number, const DivisorOf<N>& by) {
  return (high_product(by.magic, number) + number) >> by.shift;
}

}  // namespace fastadv
