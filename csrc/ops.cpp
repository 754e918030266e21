// Every operator's schema. Back ends register themselves from cpu/*.cpp and cuda/*.cpp.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(fastadv, m) {
  // adv <- clamp_range(clip_{clean, eps}(adv + alpha * sign(grad))). No clean: the first step, where clean is adv.
  // alpha and eps are multiplied by alphas [N] and epses [N] where given; all are in pixel values.
  // std, lower, upper: one number, or one per channel.
  m.def(
      "sign_step_(Tensor(a!) adv, Tensor? clean, Tensor grad, float alpha, Tensor? alphas, float eps, Tensor? epses, "
      "float[] std, float[] lower, float[] upper) -> ()");

  // The same along grad / ||grad|| per example; norm is l2 (and the ball with it) or linf.
  m.def(
      "normalized_step_(Tensor(a!) adv, Tensor? clean, Tensor grad, float alpha, Tensor? alphas, float eps, "
      "Tensor? epses, str norm, float[] std, float[] lower, float[] upper) -> ()");

  // Random numbers are those of the stream (seed, offset), or of (seed, offset) read from stream [2], int64 on the
  // device, where a captured CUDA graph or a compiled function needs new ones in each call; offset is added to it.

  // adv <- clamp_range(clean + noise); kind is sign, truncated_normal or uniform, made in the kernel.
  m.def(
      "noise_step_(Tensor(a!) adv, Tensor? clean, float eps, Tensor? epses, str kind, int seed, int offset, "
      "Tensor? stream, float[] std, float[] lower, float[] upper) -> ()");

  // images <- clamp_range((pixels - mean) / std), of pixels in uint8; the examples that mirrored [N] names are flipped
  // along their last dimension.
  m.def(
      "from_pixels_(Tensor(a!) images, Tensor pixels, Tensor? mirrored, float[] mean, float[] std, float[] lower, "
      "float[] upper) -> ()");

  // eps [N] <- |N(0, sigma)| truncated to [0, upper]; row i is a function of (seed, offset + i).
  m.def("truncated_normal_(Tensor(a!) eps, float sigma, float upper, int seed, int offset, Tensor? stream) -> ()");
  m.def(
      "sample_eps(int n, float sigma, float upper, int seed, int offset, Tensor? stream, *, Device? device=None) "
      "-> Tensor");

  // target [N] and d(sum of the costs) / d logits; rule is label, predicted, least_likely, random or entropy.
  m.def(
      "target_grad(Tensor logits, str rule, Tensor? labels, float label_smoothing, int seed, int offset, "
      "Tensor? stream) -> (Tensor target, Tensor dlogits)");

  // The same derivative as dlogits * 2^exponent, exponent [N] int32, by which the largest of a row is in [0.5, 1).
  m.def(
      "scaled_target_grad(Tensor logits, str rule, Tensor? labels, float label_smoothing, int seed, int offset, "
      "Tensor? stream) -> (Tensor target, Tensor dlogits, Tensor exponent)");

  // The paper's loss over m rows of which the first k are adversarial, and d(loss) / d logits.
  m.def(
      "mixed_cross_entropy(Tensor logits, Tensor labels, int k, float lambda_, float label_smoothing) "
      "-> (Tensor loss, Tensor dlogits)");
}
