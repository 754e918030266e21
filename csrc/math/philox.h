// Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", 2011).
//
// A counter-based generator: a draw is a function of its counter and key alone, so that any thread can make any draw,
// the CPU and the GPU make the same ones, and splitting a batch changes nothing.
#pragma once

#include <cstdint>

#include "../arguments.h"
#include "macros.h"

namespace fastadv {

struct Philox {
  uint32_t word[4];
};

FASTADV_HOST_DEVICE Philox philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t key) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(c0) * 0xD2511F53u;
    const uint64_t p1 = static_cast<uint64_t>(c2) * 0xCD9E8D57u;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// What a block is for: draws of one example for different purposes are independent.
enum class Purpose : uint32_t { noise = 0, eps = 1, target = 2 };

// The block-th four words of one example of a seed's sequence; `example` counts over all of it.
FASTADV_HOST_DEVICE Philox draw(uint64_t seed, uint64_t example, uint32_t block, Purpose purpose) {
  return philox(block, static_cast<uint32_t>(example), static_cast<uint32_t>(example >> 32),
                static_cast<uint32_t>(purpose), seed);
}

// With the seed and offset that on_device holds, if it is set.
FASTADV_HOST_DEVICE RngState resolved(RngState rng_state) {
  if (rng_state.on_device == nullptr) return rng_state;
  return {static_cast<uint64_t>(rng_state.on_device[0]),
          rng_state.offset + static_cast<uint64_t>(rng_state.on_device[1]), nullptr};
}

// Uniform over [0, n), by multiplication; the bias is below n / 2^32.
FASTADV_HOST_DEVICE uint32_t uniform_below(uint32_t word, uint32_t n) {
  return static_cast<uint32_t>((static_cast<uint64_t>(word) * n) >> 32);
}

}  // namespace fastadv
