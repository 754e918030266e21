// What an operator's kernel is told, once its arguments were checked: plain structs, no torch.
#pragma once

#include <cstdint>

namespace fastadv {

enum class DType { float32, float64, bfloat16, float16 };

// More channels than this have no constants of their own: the structs below travel as kernel parameters.
constexpr int kMaxChannels = 32;

// A dense batch of images as the kernels walk it: [examples, channels, plane] if contiguous, [examples, plane,
// channels] if channels_last. Where all channels share their constants it is one channel of a longer plane.
struct Batch {
  int64_t examples, channels, plane;
  bool channels_last;
};

// Constants of a PixelSpace, one for each channel or, if shared, the first for all; bounds are already rounded for the
// stored dtype.
struct Space {
  double std[kMaxChannels], lower[kMaxChannels], upper[kMaxChannels];
  bool shared;
};

// A number, or one per example: value * (per_example ? per_example[n] : 1), in pixel values.
struct PerExample {
  double value;
  const void* per_example;  // [N] of the compute dtype: float64 for float64 images, float32 otherwise
};

enum class Norm { l2, linf };
enum class Noise { sign, truncated_normal, uniform };
enum class Rule { label, predicted, least_likely, random, entropy };

// adv is read and written; clean is null where it is adv itself, as before the first step.
struct Step {
  void* adv;          // [N, C, ...]
  const void* clean;  // [N, C, ...] or null
  const void* grad;   // [N, C, ...]
  DType dtype;
  Batch batch;
  Space space;
  PerExample alpha, eps;
};

// First draw of a call: row i uses example offset + i of the stream `seed`. Where there is a pointer, the seed and a
// number to add to the offset are read from it by the kernel, on the device.
struct Stream {
  uint64_t seed, offset;
  const int64_t* from;  // [2] or null
};

struct NoiseStep {
  Step step;  // no grad, no alpha
  Noise kind;
  Stream stream;
};

// images <- the model's input for pixels; rows of `width` places, those of the last dimension, are mirrored where told.
struct FromPixels {
  const uint8_t* pixels;    // [N, C, ...]
  const uint8_t* mirrored;  // [N] or null: any but 0 means yes
  void* images;             // [N, C, ...]
  DType dtype;              // of the images
  Batch batch;              // channels_last: channels apart even where they share their constants
  int64_t width;
  double mean[kMaxChannels];
  Space space;
};

struct EpsSample {
  void* eps;  // [N]
  DType dtype;
  int64_t examples;
  double sigma, upper;
  Stream stream;
};

struct TargetGrad {
  const void* logits;     // [N, K]
  const int64_t* labels;  // [N] or null
  void* dlogits;          // [N, K]
  int64_t* target;        // [N]
  int32_t* exponent;      // [N] or null: the derivative is dlogits * 2^exponent, or dlogits itself
  DType dtype;
  int64_t rows, classes;
  Rule rule;
  double label_smoothing;
  Stream stream;
};

struct MixedCrossEntropy {
  const void* logits;     // [m, K]
  const int64_t* labels;  // [m]
  void* dlogits;          // [m, K] of the compute dtype, which a scaled loss does not take out of its range
  void* row_loss;         // [m] of the compute dtype: each row's share of the loss
  DType dtype;
  int64_t rows, classes;
  int64_t k;  // rows [0, k) are adversarial
  double clean_weight, adversarial_weight, label_smoothing;
};

}  // namespace fastadv
