// Norms per example on the CPU: of gradients, and of the distance that a step along them reaches.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "../checks/steps.h"
#include "backends.h"
#include "normalized_step.h"

namespace fastadv {

inline Norm norm_of(const char* op, const std::string& text) {
  if (text == "l2") return Norm::l2;
  checks::value(text == "linf", op, "norm must be 'l2' or 'linf', got '", text, "'");
  return Norm::linf;
}

// Per-example totals of chunked partial sums: added in order, so that the threads do not show.
template <class Reduce, class Join>
std::vector<double> over_examples(const Batch& batch, Reduce reduce, Join join) {
  const int64_t chunks = chunks_per_example(batch);
  std::vector<double> partial(batch.examples * chunks), total(batch.examples);
  torch::stable::parallel_for(0, batch.examples * chunks, 2,
                              [&](int64_t begin, int64_t end) { reduce(partial.data(), begin, end); });
  for (int64_t i = 0; i < batch.examples * chunks; ++i) total[i / chunks] = join(total[i / chunks], partial[i]);
  return total;
}

inline double larger(double a, double b) { return a > b ? a : b; }
inline double sum(double a, double b) { return a + b; }

// The inverse of the norm of each example's gradient; 0 where it is zero.
inline std::vector<double> inverse_length(const Step& step, Norm norm) {
  std::vector<double> scale(step.batch.examples, 1.0), inverse(step.batch.examples, 1.0);
  // Squares of float64 can leave the range of double; those of the narrower types cannot.
  if (norm == Norm::linf || step.dtype == DType::float64) {
    scale = over_examples(
        step.batch, [&](double* partial, int64_t begin, int64_t end) { cpu::gradient_max(step, partial, begin, end); },
        larger);
    for (size_t n = 0; n < scale.size(); ++n) inverse[n] = inverse_or_zero(scale[n]);
  }
  if (norm == Norm::linf) return inverse;
  const std::vector<double> squares = over_examples(
      step.batch,
      [&](double* partial, int64_t begin, int64_t end) {
        cpu::gradient_squares(step, inverse.data(), partial, begin, end);
      },
      sum);
  for (size_t n = 0; n < squares.size(); ++n) inverse[n] = inverse_or_zero(scale[n] * std::sqrt(squares[n]));
  return inverse;
}

// The factor that brings each example's perturbation, of this length, back onto the L2 ball; 1 inside it.
inline std::vector<double> shrink_to_ball(const Step& step, std::vector<double> distance) {
  for (size_t n = 0; n < distance.size(); ++n)
    distance[n] = shrink_onto_ball(distance[n], checks::value_of(step.eps, step.dtype, n));
  return distance;
}

// The same from partial sums of squared distances: reduce(partial, begin, end).
template <class Reduce>
std::vector<double> shrink_from_squares(const Step& step, Reduce reduce) {
  std::vector<double> distance = over_examples(step.batch, reduce, sum);
  for (double& value : distance) value = std::sqrt(value);
  return shrink_to_ball(step, distance);
}

// That of a step along the gradient.
inline std::vector<double> shrink_unit_step(const Step& step, const std::vector<double>& inverse_length) {
  return shrink_from_squares(step, [&](double* partial, int64_t begin, int64_t end) {
    cpu::distance_squares(step, inverse_length.data(), partial, begin, end);
  });
}

}  // namespace fastadv
