// Checks an operator's arguments once, for both back ends, and turns them into the plain structs of arguments.h.
//
// A failed check throws a message that begins with the Python exception it should become; fastadv/ops.py raises it.
#pragma once

#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "arguments.h"

namespace fastadv::checks {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The message of the thread's last failure: an exception does not cross the dispatcher with its message.
inline thread_local std::string last_failure;

template <class... Parts>
[[noreturn]] void fail(const char* exception, const char* op, const Parts&... parts) {
  std::ostringstream message;
  message << exception << ": fastadv." << op << ": ";
  (message << ... << parts);
  last_failure = message.str();
  throw std::runtime_error(last_failure);
}

template <class... Parts>
void value(bool holds, const char* op, const Parts&... parts) {
  if (!holds) fail("ValueError", op, parts...);
}

template <class... Parts>
void type(bool holds, const char* op, const Parts&... parts) {
  if (!holds) fail("TypeError", op, parts...);
}

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

// Whether the dimensions, in the order given, are dense in memory; sizes of 1 put no condition on their strides, nor
// does any where there is no element.
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

// A tensor that the step reads beside adv.
inline void like_adv(const char* op, const char* what, const Tensor& tensor, const Tensor& adv, bool channels_last) {
  type(tensor.scalar_type() == adv.scalar_type(), op, what, " must have adv's dtype ", name(adv.scalar_type()),
       ", got ", name(tensor.scalar_type()));
  same_device(op, what, tensor, adv);
  value(shape(tensor) == shape(adv), op, what, " must have adv's shape ", shape(adv), ", got ", shape(tensor));
  value(dense(tensor, channels_last), op, what, " must have adv's strides");
  value(!overlap(tensor, adv), op, what, " must not share memory with adv");
}

// values [N] or none, adv [N, C, ...].
inline PerExample per_example(const char* op, const char* what, double number, const std::optional<Tensor>& values,
                              const Tensor& adv, DType dtype, bool negative_allowed) {
  value(!std::isnan(number) && (negative_allowed ? std::isfinite(number) : number >= 0), op, what, " must be ",
        negative_allowed ? "finite" : "zero or more", ", got ", number);
  if (!values.has_value()) return {number, nullptr};
  type(values->scalar_type() == compute_dtype(dtype), op, what, " per example must be ", name(compute_dtype(dtype)),
       ", got ", name(values->scalar_type()));
  same_device(op, what, *values, adv);
  value(values->dim() == 1 && values->size(0) == adv.size(0) && values->is_contiguous(), op, what,
        " must be a number or a contiguous tensor of shape [", adv.size(0), "], got shape ", shape(*values));
  value(!overlap(*values, adv), op, what, " must not share memory with adv");
  return {number, values->data_ptr()};
}

// One number or one per channel of adv, as a table over the channels that the kernels see.
inline Space space(const char* op, const Tensor& adv, const std::vector<double>& std, const std::vector<double>& lower,
                   const std::vector<double>& upper) {
  value(!std.empty() && std.size() == lower.size() && std.size() == upper.size(), op,
        "std, lower and upper must have one length, got ", std.size(), ", ", lower.size(), ", ", upper.size());
  value(std.size() <= kMaxChannels, op, "at most ", kMaxChannels, " channels can have constants of their own, got ",
        std.size());
  value(std.size() == 1 || (adv.dim() >= 2 && adv.size(1) == static_cast<int64_t>(std.size())), op, "a space of ",
        std.size(), " channels needs images [N, ", std.size(), ", ...], got ", shape(adv),
        adv.dim() == 3 ? "; make a batch of a single image by images[None]" : "");
  Space result{};
  result.shared = std.size() == 1;
  for (size_t c = 0; c < std.size(); ++c) {
    value(std[c] > 0, op, "std must be positive, got ", std[c]);
    result.std[c] = std[c];
    result.lower[c] = lower[c];
    result.upper[c] = upper[c];
  }
  return result;
}

// How the kernels walk adv [N, C, ...]. Channels that share their constants are one unless a kernel has to tell them
// apart.
inline Batch batch(const Tensor& adv, bool channels_last, bool one_channel) {
  const int64_t examples = adv.size(0), size = examples == 0 ? 0 : adv.numel() / examples;
  const int64_t channels = one_channel || adv.dim() < 2 || size == 0 ? 1 : adv.size(1);
  return {examples, channels, size / channels, channels_last && channels > 1};
}

inline bool channels_last(const char* op, const char* what, const Tensor& images) {
  value(images.dim() >= 1, op, what, " must have a batch dimension: shape [N, ...], got a scalar");
  if (dense(images, false)) return false;
  value(images.dim() >= 3 && dense(images, true), op, what, " must be contiguous or channels_last");
  return true;
}

// adv, clean, grad [N, C, ...]; alphas, epses [N].
inline Step step(const char* op, const Tensor& adv, const std::optional<Tensor>& clean,
                 const std::optional<Tensor>& grad, double alpha, const std::optional<Tensor>& alphas, double eps,
                 const std::optional<Tensor>& epses, const std::vector<double>& std, const std::vector<double>& lower,
                 const std::vector<double>& upper, bool channels_apart) {
  const DType dtype = floating(op, "adv", adv);
  const bool last = channels_last(op, "adv", adv);
  if (clean.has_value()) like_adv(op, "clean", *clean, adv, last);
  if (grad.has_value()) like_adv(op, "grad", *grad, adv, last);
  const bool one_channel = std.size() == 1 && !(channels_apart && last);
  return {adv.data_ptr(),
          clean.has_value() ? clean->data_ptr() : nullptr,
          grad.has_value() ? grad->data_ptr() : nullptr,
          dtype,
          batch(adv, last, one_channel),
          space(op, adv, std, lower, upper),
          per_example(op, "alpha", alpha, alphas, adv, dtype, true),
          per_example(op, "eps", eps, epses, adv, dtype, false)};
}

// images, pixels [N, C, ...]; mirrored [N] or none.
inline FromPixels from_pixels(const char* op, const Tensor& images, const Tensor& pixels,
                              const std::optional<Tensor>& mirrored, const std::vector<double>& mean,
                              const std::vector<double>& std, const std::vector<double>& lower,
                              const std::vector<double>& upper) {
  const DType dtype = floating(op, "images", images);
  type(pixels.scalar_type() == ScalarType::Byte, op, "pixels must be uint8, got ", name(pixels.scalar_type()));
  same_device(op, "pixels", pixels, images);
  value(shape(pixels) == shape(images), op, "pixels must have the shape of images ", shape(images), ", got ",
        shape(pixels));
  const bool last = channels_last(op, "images", images);
  value(dense(pixels, last), op, "pixels must have the strides of images");
  value(!overlap(pixels, images), op, "pixels must not share memory with images");
  if (mirrored.has_value()) {
    const ScalarType flags = mirrored->scalar_type();
    type(flags == ScalarType::Bool || flags == ScalarType::Byte, op, "mirrored must be bool or uint8, got ",
         name(flags));
    same_device(op, "mirrored", *mirrored, images);
    value(mirrored->dim() == 1 && mirrored->size(0) == images.size(0) && mirrored->is_contiguous(), op,
          "mirrored must be a contiguous tensor of shape [", images.size(0), "], got shape ", shape(*mirrored));
    value(!overlap(*mirrored, images), op, "mirrored must not share memory with images");
    value(images.dim() >= 3, op, "mirrored needs images [N, C, ..., W], got ", shape(images));
  }
  const Space constants = space(op, images, std, lower, upper);
  value(mean.size() == std.size(), op, "mean must have std's length ", std.size(), ", got ", mean.size());
  const Batch walked = batch(images, last, constants.shared && !last);
  const int64_t width = images.dim() >= 3 ? images.size(images.dim() - 1) : walked.plane;
  FromPixels args{static_cast<const uint8_t*>(pixels.data_ptr()),
                  mirrored.has_value() ? static_cast<const uint8_t*>(mirrored->data_ptr()) : nullptr,
                  images.data_ptr(),
                  dtype,
                  walked,
                  width > 0 ? width : 1,
                  {},
                  constants};
  std::copy(mean.begin(), mean.end(), args.mean);
  return args;
}

// from [2] or none.
inline Stream stream(const char* op, const Tensor& reference, int64_t seed, int64_t offset,
                     const std::optional<Tensor>& from) {
  value(offset >= 0, op, "offset must be zero or more, got ", offset);
  if (!from.has_value()) return {static_cast<uint64_t>(seed), static_cast<uint64_t>(offset), nullptr};
  type(from->scalar_type() == ScalarType::Long, op, "stream must be int64, got ", name(from->scalar_type()));
  same_device(op, "stream", *from, reference);
  value(from->dim() == 1 && from->size(0) == 2 && from->is_contiguous(), op,
        "stream must hold a seed and an offset, a contiguous tensor of shape [2], got shape ", shape(*from));
  return {0, static_cast<uint64_t>(offset), static_cast<const int64_t*>(from->data_ptr())};
}

inline Norm norm(const char* op, const std::string& text) {
  if (text == "l2") return Norm::l2;
  value(text == "linf", op, "norm must be 'l2' or 'linf', got '", text, "'");
  return Norm::linf;
}

inline Noise noise(const char* op, const std::string& text) {
  if (text == "sign") return Noise::sign;
  if (text == "truncated_normal") return Noise::truncated_normal;
  value(text == "uniform", op, "kind must be 'sign', 'truncated_normal' or 'uniform', got '", text, "'");
  return Noise::uniform;
}

inline Rule rule(const char* op, const std::string& text) {
  if (text == "label") return Rule::label;
  if (text == "predicted") return Rule::predicted;
  if (text == "least_likely") return Rule::least_likely;
  if (text == "random") return Rule::random;
  value(text == "entropy", op, "rule must be 'label', 'predicted', 'least_likely', 'random' or 'entropy', got '", text,
        "'");
  return Rule::entropy;
}

// eps [N].
inline EpsSample eps_sample(const char* op, const Tensor& eps, double sigma, double upper, int64_t seed, int64_t offset,
                            const std::optional<Tensor>& from) {
  const DType dtype = floating(op, "eps", eps);
  value(eps.dim() == 1 && eps.is_contiguous(), op, "eps must be a contiguous tensor of shape [N], got ", shape(eps));
  value(sigma > 0 && std::isfinite(sigma), op, "sigma must be positive and finite, got ", sigma);
  value(upper > 0 && std::isfinite(upper), op, "upper must be positive and finite, got ", upper);
  return {eps.data_ptr(), dtype, eps.size(0), sigma, upper, stream(op, eps, seed, offset, from)};
}

// logits [N, K].
inline void logits(const char* op, const Tensor& logits) {
  value(logits.dim() == 2 && logits.size(1) >= 1, op, "logits must have shape [N, K] with K >= 1, got ", shape(logits));
  value(logits.is_contiguous(), op, "logits must be contiguous");
  value(logits.size(1) <= INT32_MAX, op, "at most 2^31 - 1 classes, got ", logits.size(1));
}

// labels [N], logits [N, K].
inline void labels(const char* op, const Tensor& labels, const Tensor& logits) {
  type(labels.scalar_type() == ScalarType::Long, op, "labels must be int64, got ", name(labels.scalar_type()));
  same_device(op, "labels", labels, logits);
  value(labels.dim() == 1 && labels.size(0) == logits.size(0) && labels.is_contiguous(), op,
        "labels must be a contiguous tensor of shape [", logits.size(0), "], got ", shape(labels));
}

// Labels on the CPU can be read at no cost; on a GPU the kernels answer a label out of range with NaN.
inline void labels_in_range(const char* op, const int64_t* labels, int64_t rows, int64_t classes) {
  for (int64_t i = 0; labels != nullptr && i < rows; ++i)
    value(labels[i] >= 0 && labels[i] < classes, op, "labels must be in [0, ", classes, "), got ", labels[i],
          " at row ", i);
}

inline void label_smoothing(const char* op, double smoothing) {
  value(smoothing >= 0 && smoothing < 1, op, "label_smoothing must be in [0, 1), got ", smoothing);
}

struct TargetGradTensors {
  TargetGrad args;
  Tensor target, dlogits;  // [N] int64, [N, K]
};

inline Tensor exponents(const Tensor& logits) {  // [N, K] -> [N] int32
  return torch::stable::new_empty(logits, {logits.size(0)}, ScalarType::Int);
}

inline TargetGradTensors target_grad(const char* op, const Tensor& logits, const std::string& rule_name,
                                     const std::optional<Tensor>& labels, double label_smoothing, int64_t seed,
                                     int64_t offset, const std::optional<Tensor>& from) {
  checks::logits(op, logits);
  const DType dtype = floating(op, "logits", logits);
  const Rule rule = checks::rule(op, rule_name);
  checks::label_smoothing(op, label_smoothing);
  value(rule != Rule::label || labels.has_value(), op, "rule 'label' needs labels [N]");
  if (rule == Rule::label) checks::labels(op, *labels, logits);
  const int64_t rows = logits.size(0), classes = logits.size(1);
  Tensor target = torch::stable::new_empty(logits, {rows}, ScalarType::Long);
  Tensor dlogits = torch::stable::new_empty(logits, {rows, classes});
  return {{logits.data_ptr(), rule == Rule::label ? static_cast<const int64_t*>(labels->data_ptr()) : nullptr,
           dlogits.data_ptr(), static_cast<int64_t*>(target.data_ptr()), nullptr, dtype, rows, classes, rule,
           label_smoothing, stream(op, logits, seed, offset, from)},
          target,
          dlogits};
}

struct MixedCrossEntropyTensors {
  MixedCrossEntropy args;
  Tensor row_loss, dlogits;  // [m], [m, K], both of the compute dtype
};

inline MixedCrossEntropyTensors mixed_cross_entropy(const char* op, const Tensor& logits, const Tensor& labels,
                                                    int64_t k, double lambda, double label_smoothing) {
  checks::logits(op, logits);
  const DType dtype = floating(op, "logits", logits);
  checks::labels(op, labels, logits);
  checks::label_smoothing(op, label_smoothing);
  const int64_t rows = logits.size(0), classes = logits.size(1);
  value(k >= 0 && k <= rows, op, "k must be in [0, m] = [0, ", rows, "], got ", k);
  value(lambda >= 0 && std::isfinite(lambda), op, "lambda_ must be zero or more and finite, got ", lambda);
  const double weight = static_cast<double>(rows - k) + lambda * static_cast<double>(k);
  value(weight > 0, op, "the loss has no weight: m = ", rows, ", k = ", k, ", lambda_ = ", lambda);
  Tensor row_loss = torch::stable::new_empty(logits, {rows}, compute_dtype(dtype));
  Tensor dlogits = torch::stable::new_empty(logits, {rows, classes}, compute_dtype(dtype));
  return {{logits.data_ptr(), static_cast<const int64_t*>(labels.data_ptr()), dlogits.data_ptr(), row_loss.data_ptr(),
           dtype, rows, classes, k, 1.0 / weight, lambda / weight, label_smoothing},
          row_loss,
          dlogits};
}

}  // namespace fastadv::checks
