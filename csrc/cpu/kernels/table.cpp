// The kernels of one instruction set, as a table.
#include "../kernels.h"

namespace fastadv::cpu::FASTADV_ISA {

void sign_step(const Step&, int64_t, int64_t);
void noise_step(const NoiseStep&, int64_t, int64_t);
void truncated_normal(const EpsSample&, int64_t, int64_t);
void from_pixels(const FromPixels&, int64_t, int64_t);
void gradient_max(const Step&, double*, int64_t, int64_t);
void gradient_squares(const Step&, const double*, double*, int64_t, int64_t);
void distance_squares(const Step&, const double*, double*, int64_t, int64_t);
void normalized_step(const Step&, Norm, const double*, const double*, int64_t, int64_t);
void target_grad(const TargetGrad&, int64_t, int64_t);
void mixed_cross_entropy(const MixedCrossEntropy&, int64_t, int64_t);

extern const Kernels table;
const Kernels table = {sign_step,        noise_step,       truncated_normal, from_pixels, gradient_max,
                       gradient_squares, distance_squares, normalized_step,  target_grad, mixed_cross_entropy};

}  // namespace fastadv::cpu::FASTADV_ISA
