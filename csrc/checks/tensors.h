// Checks of any tensor, and how messages describe it.
#pragma once

#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/tensor.h>

#include <string>

#include "../arguments.h"
#include "errors.h"

namespace fastadv::checks {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string shape(const Tensor& tensor) {
  std::ostringstream text;
  text << '[';
  for (int64_t d = 0; d < tensor.dim(); ++d) text << (d == 0 ? "" : ", ") << tensor.size(d);
  text << ']';
  return text.str();
}

inline std::string device(const Tensor& tensor) {
  if (tensor.is_cpu()) return "cpu";
  return (tensor.is_cuda() ? "cuda:" : "device ") + std::to_string(tensor.get_device_index());
}

inline const char* name(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Half: return "float16";
    case ScalarType::Long: return "int64";
    case ScalarType::Int: return "int32";
    case ScalarType::Short: return "int16";
    case ScalarType::Char: return "int8";
    case ScalarType::Byte: return "uint8";
    case ScalarType::Bool: return "bool";
    default: return "another dtype";
  }
}

inline DType floating(const char* op, const char* what, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return DType::float32;
    case ScalarType::Double: return DType::float64;
    case ScalarType::BFloat16: return DType::bfloat16;
    case ScalarType::Half: return DType::float16;
    default:
      fail("TypeError", op, what, " must be float32, float64, bfloat16 or float16, got ", name(tensor.scalar_type()));
  }
}

inline ScalarType compute_dtype(DType dtype) {
  return dtype == DType::float64 ? ScalarType::Double : ScalarType::Float;
}

inline void same_device(const char* op, const char* what, const Tensor& tensor, const Tensor& reference) {
  value(tensor.device() == reference.device(), op, what, " must be on ", device(reference), ", got ", device(tensor));
}

// True if the dimensions, in this order, are dense in memory. Strides do not matter where a dimension is 1 or the
// tensor is empty.
inline bool dense(const Tensor& tensor, bool channels_last) {
  if (tensor.numel() == 0) return true;
  const int64_t dims = tensor.dim();
  int64_t stride = 1;
  for (int64_t i = dims - 1; i >= 0; --i) {
    // innermost first: the channels (1), then dims-1 .. 2, then 0; or simply dims-1 .. 0
    const int64_t d = !channels_last || i == 0 ? i : i == dims - 1 ? 1 : i + 1;
    if (tensor.size(d) != 1 && tensor.stride(d) != stride) return false;
    stride *= tensor.size(d);
  }
  return true;
}

inline bool overlap(const Tensor& a, const Tensor& b) {
  const char *a0 = static_cast<const char*>(a.data_ptr()), *b0 = static_cast<const char*>(b.data_ptr());
  return a0 < b0 + b.numel() * b.element_size() && b0 < a0 + a.numel() * a.element_size();
}

}  // namespace fastadv::checks
