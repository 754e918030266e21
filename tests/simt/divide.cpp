// Reads lines of a number and a divisor, and prints the quotient in 64-bit and in 32-bit arithmetic; the latter is 0 if
// either number needs more than 32 bits.
#include <iostream>

#include "../../csrc/math/fast_divide.h"

template <class N>
N quotient(uint64_t number, uint64_t divisor) {
  return fastadv::divide(static_cast<N>(number), fastadv::make_divisor(static_cast<N>(divisor)));
}

int main() {
  constexpr uint64_t limit = uint64_t{1} << 31;
  uint64_t number = 0, divisor = 0;
  while (std::cin >> number >> divisor)
    std::cout << quotient<uint64_t>(number, divisor) << ' '
              << (number < limit && divisor < limit ? quotient<uint32_t>(number, divisor) : 0) << '\n';
}
