// Reads lines of a number and a divisor, and answers each with the quotient.
#include <iostream>

#include "../../csrc/math/fast_divide.h"

int main() {
  uint64_t number = 0, divisor = 0;
  while (std::cin >> number >> divisor) std::cout << fastadv::divide(number, fastadv::make_divisor(divisor)) << '\n';
}
