// Runs the CPU kernels in several threads, for ThreadSanitizer: no thread may write what another accesses, however the
// work is split. PyTorch's own threads are not instrumented, so these replace them.
//
// cpu_threads [planted]: with any argument, the ranges overlap by one element, which is a race.
#include <cstdio>
#include <functional>
#include <thread>
#include <vector>

#include "../../csrc/ops/apgd_step.h"
#include "../../csrc/ops/from_pixels.h"
#include "../../csrc/ops/keep_best.h"
#include "../../csrc/ops/mixed_cross_entropy.h"
#include "../../csrc/ops/noise_step.h"
#include "../../csrc/ops/normalized_step.h"
#include "../../csrc/ops/row_losses.h"
#include "../../csrc/ops/sign_step.h"
#include "../../csrc/ops/target_grad.h"
#include "../../csrc/ops/truncated_normal.h"

namespace fastadv::cpu {
namespace {

constexpr int64_t kExamples = 5, kChannels = 3, kPlane = 2 * kChunk / kChannels + 7, kClasses = 37;
constexpr int64_t kElements = kExamples * kChannels * kPlane;
constexpr int kThreads = 4;

bool planted = false;

// Calls run(begin, end) on parts of [0, count) whose ends are not multiples of a vector, cache line or row.
void in_parts(int64_t count, const std::function<void(int64_t, int64_t)>& run) {
  std::vector<std::thread> threads;
  for (int64_t t = 0; t < kThreads; ++t) {
    const int64_t begin = count * t / kThreads, end = count * (t + 1) / kThreads;
    threads.emplace_back(run, begin, planted && end < count ? end + 1 : end);
  }
  for (std::thread& thread : threads) thread.join();
}

void step_kernels(DType dtype, bool channels_last) {
  std::vector<double> adv(kElements), clean(kElements), grad(kElements);  // [N, C, plane], of the widest dtype
  std::vector<double> alpha(kExamples, 1.0), eps(kExamples, 8.0);         // [N]
  Step step{adv.data(), clean.data(),        grad.data(),      dtype, {kExamples, kChannels, kPlane, channels_last},
            {},         {1.0, alpha.data()}, {1.0, eps.data()}};
  for (int c = 0; c < kMaxChannels; ++c) step.space.std[c] = step.space.upper[c] = 1.0;
  in_parts(kElements, [&](int64_t begin, int64_t end) { baseline::sign_step(step, begin, end); });
  const NoiseStep noise{step, Noise::uniform, {1, 2, nullptr}};
  in_parts(kExamples * kChannels, [&](int64_t begin, int64_t end) { baseline::noise_step(noise, begin, end); });

  const int64_t chunks = kExamples * chunks_per_example(step.batch);
  std::vector<double> partial(chunks), one(kExamples, 1.0);  // [N, chunks], [N]
  in_parts(chunks, [&](int64_t begin, int64_t end) { baseline::gradient_max(step, partial.data(), begin, end); });
  in_parts(chunks, [&](int64_t begin, int64_t end) {
    baseline::gradient_squares(step, one.data(), partial.data(), begin, end);
  });
  in_parts(chunks, [&](int64_t begin, int64_t end) {
    baseline::distance_squares(step, one.data(), partial.data(), begin, end);
  });
  in_parts(kElements, [&](int64_t begin, int64_t end) {
    baseline::normalized_step(step, Norm::l2, one.data(), one.data(), begin, end);
  });

  std::vector<double> previous(kElements);  // [N, C, plane]
  step.previous = previous.data();
  const ApgdStep apgd{step, 0.75};
  in_parts(kElements, [&](int64_t begin, int64_t end) { baseline::apgd_sign_step(apgd, begin, end); });
  in_parts(chunks, [&](int64_t begin, int64_t end) {
    baseline::apgd_distance_squares(apgd, one.data(), one.data(), partial.data(), begin, end);
  });
  in_parts(kElements, [&](int64_t begin, int64_t end) {
    baseline::apgd_unit_step(apgd, one.data(), one.data(), one.data(), begin, end);
  });
  const bool better[kExamples] = {true, true, false, true, true};
  const KeepBest best{
      {adv.data(), previous.data()}, {clean.data(), grad.data()}, 2, better, dtype, kExamples, kChannels * kPlane};
  in_parts(kElements, [&](int64_t begin, int64_t end) { baseline::keep_best(best, begin, end); });
}

void pixel_kernel(DType dtype, bool channels_last) {
  std::vector<uint8_t> pixels(kElements), mirrored(kExamples, 1);  // [N, C, plane], [N]
  std::vector<double> images(kElements);                           // [N, C, plane], of the widest dtype
  constexpr int64_t width = kPlane / 3;
  static_assert(kPlane % 3 == 0, "rows fill the plane");
  FromPixels args{pixels.data(),
                  mirrored.data(),
                  images.data(),
                  dtype,
                  {kExamples, kChannels, kPlane, channels_last},
                  width,
                  {},
                  {}};
  for (int c = 0; c < kMaxChannels; ++c) args.space.std[c] = 1.0;
  in_parts(kExamples, [&](int64_t begin, int64_t end) { baseline::from_pixels(args, begin, end); });
}

void row_kernels(DType dtype) {
  std::vector<double> logits(kElements), dlogits(kElements), loss(kElements);  // [N, K], [N, K], [N]
  std::vector<int64_t> labels(kElements), target(kElements);                   // [N]
  std::vector<int32_t> exponent(kElements);                                    // [N]
  const int64_t rows = kElements / kClasses;
  const TargetGrad single{logits.data(), labels.data(), dlogits.data(), target.data(), exponent.data(), dtype,
                          rows,          kClasses,      Rule::random,   0.1,           {1, 2, nullptr}, {},
                          nullptr};
  in_parts(rows, [&](int64_t begin, int64_t end) { baseline::target_grad(single, begin, end); });
  TargetGrad margin = single;
  margin.margin = MarginLoss::targeted_dlr;
  margin.targets = labels.data();
  in_parts(rows, [&](int64_t begin, int64_t end) { baseline::margin_grad(margin, begin, end); });
  for (const RowLoss which : {RowLoss::log_odds, RowLoss::margin}) {
    const RowLosses each{logits.data(), labels.data(), labels.data(), loss.data(),    dtype,
                         rows,          kClasses,      which,         MarginLoss::dlr};
    in_parts(rows, [&](int64_t begin, int64_t end) { baseline::row_losses(each, begin, end); });
  }
  const MixedCrossEntropy mixed{
      logits.data(), labels.data(), dlogits.data(), loss.data(), dtype, rows, kClasses, rows / 2, 1.0, 0.3, 0.1};
  in_parts(rows, [&](int64_t begin, int64_t end) { baseline::mixed_cross_entropy(mixed, begin, end); });
  const EpsSample sample{loss.data(), dtype, kElements, 8.0, 16.0, {1, 2, nullptr}};
  in_parts(kElements, [&](int64_t begin, int64_t end) { baseline::truncated_normal(sample, begin, end); });
}

}  // namespace
}  // namespace fastadv::cpu

int main(int count, char**) {
  using namespace fastadv;
  cpu::planted = count > 1;
  for (const DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
    for (const bool channels_last : {false, true}) {
      cpu::step_kernels(dtype, channels_last);
      cpu::pixel_kernel(dtype, channels_last);
    }
    cpu::row_kernels(dtype);
  }
  std::puts("every kernel ran");
}
