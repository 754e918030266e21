// Stored element types. Half precision is rounded to nearest even by integer arithmetic that every instruction set
// vectorises.
#pragma once

#include <cstdint>
#include <cstring>

#include "../arguments.h"
#include "../math/compute_type.h"
#include "../math/macros.h"

namespace fastadv::cpu {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

FASTADV_HOST_DEVICE float as_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}
FASTADV_HOST_DEVICE uint32_t as_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

FASTADV_HOST_DEVICE float load(float value) { return value; }
FASTADV_HOST_DEVICE double load(double value) { return value; }
FASTADV_HOST_DEVICE float load(BFloat16 value) { return as_float(static_cast<uint32_t>(value.bits) << 16); }

FASTADV_HOST_DEVICE float load(Float16 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t shifted = static_cast<uint32_t>(value.bits & 0x7FFFu) << 13;  // exponent still biased by 15
  const float normal = as_float(shifted + ((127u - 15u) << 23));
  const float subnormal = as_float(shifted + (113u << 23)) - as_float(113u << 23);
  const float special = as_float(shifted | 0x7F800000u);  // infinity, NaN
  const float magnitude = shifted < (1u << 23) ? subnormal : shifted >= (31u << 23) ? special : normal;
  return as_float(as_bits(magnitude) | sign);
}

FASTADV_HOST_DEVICE void store(float& to, float value) { to = value; }
FASTADV_HOST_DEVICE void store(double& to, double value) { to = value; }

// A NaN here stems from a bfloat16 or from arithmetic, so its low half is zero and the rounding leaves it a NaN.
FASTADV_HOST_DEVICE void store(BFloat16& to, float value) {
  const uint32_t bits = as_bits(value);
  to.bits = static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

FASTADV_HOST_DEVICE void store(Float16& to, float value) {
  const uint32_t bits = as_bits(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
  // Adding 0.5 puts a subnormal result's last bit at the float's last bit: the addition rounds it.
  const uint32_t subnormal = as_bits(as_float(magnitude) + 0.5f) - as_bits(0.5f);
  const uint32_t normal = (magnitude - ((127u - 15u) << 23) + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
  const uint32_t finite = magnitude < (113u << 23) ? subnormal : normal;
  const uint32_t special = magnitude > 0x7F800000u ? 0x7E00u : 0x7C00u;
  to.bits = static_cast<uint16_t>(sign | (magnitude >= 0x477FF000u ? special : finite));
}

// Calls function with a value of the stored type.
template <class Function>
FASTADV_HOST_DEVICE void with_type(DType dtype, Function function) {
  switch (dtype) {
    case DType::float32: return function(float{});
    case DType::float64: return function(double{});
    case DType::bfloat16: return function(BFloat16{});
    case DType::float16: return function(Float16{});
  }
}

}  // namespace fastadv::cpu
