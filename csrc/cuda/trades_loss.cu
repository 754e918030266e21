// The loss of TRADES and its derivatives: each row's share of the mean, then their sum.
#include "../ops/trades_loss.h"
#include "pair_of_rows.cuh"
#include "total_loss.cuh"

namespace fastadv::cuda {
namespace {

// Writes the derivatives dz and dz_adv [K]; returns the row's loss times weight.
template <class Row, class F = typename Row::F>
__device__ __forceinline__ F trades_row(const Row& row, F* dz, F* dz_adv, int32_t target, F weight, F weight_of_kl,
                                        Smoothing<F> smoothing) {
  // Of the exponentials: clean without the target's, adversarial; of differences; of e_j d_j; of z_j - max z.
  using Sums = SumsOf<F, 5>;
  const Sums of = row.reduce(
      Add{},
      [&](int64_t j) {
        const PairOfExp<F> e = row.at(j);
        return Sums{j == target ? F(0) : e.clean, e.adv, difference(e), kl_mean_term(e.clean, row.shift(j)),
                    load(row.clean.z[j]) - row.tops.clean};
      },
      Sums{});
  const F shifted_target = shifted_or_nan(row.clean.z, target, row.tops.clean);
  const F others = of.term[0], clean_sum = others + static_cast<F>(std::exp(shifted_target));
  const F log_ratio = log_ratio_of_sums(clean_sum, of.term[1], of.term[2]);
  const F clean_inverse = F(1) / clean_sum, adv_inverse = F(1) / of.term[1], mean = of.term[3] * clean_inverse;
  F divergence = 0;
  row.each([&](int64_t j) {
    const PairOfExp<F> e = row.at(j);
    const F p = e.clean * clean_inverse, of_adv = kl_grad_adv(difference(e), p, of.term[2], adv_inverse);
    const F of_cross_entropy = j == target ? cross_entropy_grad_target(others, clean_inverse, smoothing)
                                           : cross_entropy_grad_other(e.clean, clean_inverse, smoothing);
    divergence += kl_term(p, of_adv, e.log_ratio - log_ratio);
    dz[j] = weight * of_cross_entropy + weight_of_kl * kl_grad_clean(p, row.shift(j), mean);
    dz_adv[j] = weight_of_kl * of_adv;
  });
  divergence = group_reduce<Row::kGroup>(divergence, Add{});
  const F mean_shifted = of.term[4] / static_cast<F>(row.clean.classes);
  return weight * cross_entropy(static_cast<F>(std::log(clean_sum)), shifted_target, mean_shifted, smoothing) +
         weight_of_kl * divergence;
}

// A label out of range makes its row NaN.
template <class Row>
__global__ void __launch_bounds__(kThreads, kPairBlocks<Row>)
    trades_kernel(const __grid_constant__ TradesLoss args, const Smoothing<typename Row::F> smoothing) {
  using T = typename Row::Stored;
  using F = typename Row::F;
  const int64_t i = own_row<Row>(), first = i * args.classes;
  if (i >= args.rows) return;
  const Row row(static_cast<const T*>(args.logits) + first, static_cast<const T*>(args.adv_logits) + first,
                args.classes, static_cast<int>(threadIdx.x) % Row::kGroup);
  const F loss = trades_row(row, static_cast<F*>(args.dlogits) + first, static_cast<F*>(args.dadv_logits) + first,
                            class_or_none(args.labels[i], args.classes), static_cast<F>(args.weight),
                            static_cast<F>(args.beta * args.weight), smoothing);
  if (row.leads()) static_cast<F*>(args.row_loss)[i] = loss;
}

}  // namespace

cudaError_t trades_loss(const TradesLoss& args, void* loss, cudaStream_t stream) {
  with_type(args.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using F = compute_t<T>;
    with_pair_of_rows<T>(args.classes, [&](auto* row) {
      using Row = std::remove_pointer_t<decltype(row)>;
      FASTADV_LAUNCH(trades_kernel<Row>, blocks_of_pairs<Row>(args.rows), kThreads, stream, args,
                     smoothing_of(static_cast<F>(args.label_smoothing), args.classes));
    });
    FASTADV_LAUNCH(total_kernel<F>, 1, kThreads, stream, static_cast<const F*>(args.row_loss), args.rows,
                   static_cast<F*>(loss));
  });
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
