// Sums over a row in a fixed number of partial sums, so that they are vectorised, and the same for every instruction
// set.
#pragma once

#include <cstdint>

#include "../math/macros.h"

namespace fastadv::cpu {
namespace {  // compiled once per instruction set

constexpr int kLanes = 16;

struct LaneSums {
  double values[kLanes] = {};

  template <class F>
  __attribute__((always_inline)) void add(const F* block, int count) {
    for (int l = 0; l < count; ++l) values[l] += block[l];
  }

  double total() const {
    double sum = 0;
    for (double value : values) sum += value;
    return sum;
  }
};

// Calls body(first, count) for each block of `count` elements: kLanes, known to the compiler, and then those left over.
template <class Body>
FASTADV_HOST_DEVICE void in_blocks(int64_t size, Body body) {
  int64_t first = 0;
  for (; first + kLanes <= size; first += kLanes) body(first, kLanes);
  if (first < size) body(first, static_cast<int>(size - first));
}

}  // namespace
}  // namespace fastadv::cpu
