// The CPU kernels, compiled once per instruction set; table() is the set that this machine runs.
//
// Each kernel works on a range, so that the caller can split it over threads as it likes: no result depends on the
// split. Ranges are of elements unless a comment says otherwise.
#pragma once

#include "../arguments.h"
#include "../math/normalized_step.h"

namespace fastadv::cpu {

struct Kernels {
  void (*sign_step)(const Step&, int64_t begin, int64_t end);
  void (*noise_step)(const NoiseStep&, int64_t begin, int64_t end);  // examples * channels
  void (*truncated_normal)(const EpsSample&, int64_t begin, int64_t end);
  void (*from_pixels)(const FromPixels&, int64_t begin, int64_t end);  // examples

  // The parts of a normalised step. Per example, in double: a scale divides the gradient before it is squared, the
  // length is the gradient's norm, shrink projects onto the ball. Ranges of the first three are of chunks.
  void (*gradient_max)(const Step&, double* partial, int64_t begin, int64_t end);
  void (*gradient_squares)(const Step&, const double* inverse_scale, double* partial, int64_t begin, int64_t end);
  void (*distance_squares)(const Step&, const double* inverse_length, double* partial, int64_t begin, int64_t end);
  void (*normalized_step)(const Step&, Norm, const double* inverse_length, const double* shrink, int64_t begin,
                          int64_t end);

  void (*target_grad)(const TargetGrad&, int64_t begin, int64_t end);                 // rows
  void (*mixed_cross_entropy)(const MixedCrossEntropy&, int64_t begin, int64_t end);  // rows
};

struct InstructionSet {
  const char* name;
  const Kernels* kernels;
};

// The widest compiled set that the machine supports, or the one that FASTADV_ISA names.
const InstructionSet& instruction_set();

inline const Kernels& kernels() { return *instruction_set().kernels; }

FASTADV_HOST_DEVICE int64_t chunks_per_example(const Batch& batch) {
  return (batch.channels * batch.plane + kChunk - 1) / kChunk;
}

}  // namespace fastadv::cpu
