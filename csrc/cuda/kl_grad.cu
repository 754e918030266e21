// The derivative of each row's divergence with respect to the adversarial logits, scaled by a power of two.
#include "../ops/kl_grad.h"
#include "pair_of_rows.cuh"

namespace fastadv::cuda {
namespace {

// Writes grad(j) times a power of two to dz [K], and returns its exponent; `whole` is NaN if the row is.
template <class Row, class Grad>
__device__ __forceinline__ int32_t store_scaled(const Row& row, typename Row::Stored* dz, Grad grad,
                                                typename Row::F whole, int32_t exponent_of_origin) {
  using F = typename Row::F;
  const F largest = row.reduce(Larger{}, [&](int64_t j) { return std::fabs(grad(j)); });
  const Scale<F> scale = scale_of(whole == whole ? largest : whole, exponent_of_origin);
  row.each([&](int64_t j) { store(dz[j], scale.factor * grad(j)); });
  return scale.exponent;
}

// Both rows are certain of the same class: both sums are 1, and the other classes' exponentials may vanish.
template <class Row>
__device__ __forceinline__ int32_t certain(const Row& row, typename Row::Stored* dz) {
  using F = typename Row::F;
  const auto larger = [&](int64_t j) {
    return j == row.top ? F(-INFINITY)
                        : Larger{}(load(row.clean.z[j]) - row.tops.clean, load(row.adv.z[j]) - row.tops.adv);
  };
  const Origin<F> origin = origin_of_others(F(0), row.reduce(Larger{}, larger, F(-INFINITY)));
  const auto other = [&](int64_t j) { return difference(row.at(j, origin.value)); };
  const F of_top = -row.reduce(Add{}, [&](int64_t j) { return j == row.top ? F(0) : other(j); });
  return store_scaled(row, dz, [&](int64_t j) { return j == row.top ? of_top : other(j); }, of_top, origin.exponent);
}

template <class Row>
__device__ __forceinline__ int32_t kl_grad_of(const Row& row, typename Row::Stored* dz) {
  using F = typename Row::F;
  using Sums = SumsOf<F, 3>;  // of the differences; of the exponentials but the top's: clean, adversarial
  const Sums of = row.reduce(
      Add{},
      [&](int64_t j) {
        const PairOfExp<F> e = row.at(j);
        return j == row.top ? Sums{difference(e), F(0), F(0)} : Sums{difference(e), e.clean, e.adv};
      },
      Sums{});
  const PairOfExp<F> of_top = row.at(row.top);
  const F clean_sum = of.term[1] + of_top.clean, adv_sum = of.term[2] + of_top.adv;
  if (is_certain(clean_sum, of.term[1]) && is_certain(adv_sum, of.term[2])) return certain(row, dz);
  const F clean_inverse = F(1) / clean_sum, adv_inverse = F(1) / adv_sum;
  const auto grad = [&](int64_t j) {
    const PairOfExp<F> e = row.at(j);
    return kl_grad_adv(difference(e), e.clean * clean_inverse, of.term[0], adv_inverse);
  };
  return store_scaled(row, dz, grad, of.term[0], 0);
}

template <class Row>
__global__ void __launch_bounds__(kThreads, kPairBlocks<Row>) kl_grad_kernel(const __grid_constant__ KlGrad args) {
  using T = typename Row::Stored;
  const int64_t i = own_row<Row>(), first = i * args.classes;
  if (i >= args.rows) return;
  const Row row(static_cast<const T*>(args.clean_logits) + first, static_cast<const T*>(args.logits) + first,
                args.classes, static_cast<int>(threadIdx.x) % Row::kGroup);
  const int32_t exponent = kl_grad_of(row, static_cast<T*>(args.dlogits) + first);
  if (row.leads()) args.exponent[i] = exponent;
}

}  // namespace

cudaError_t kl_grad(const KlGrad& args, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  with_type(args.dtype, [&](auto* type) {
    with_pair_of_rows<std::remove_pointer_t<decltype(type)>>(args.classes, [&](auto* row) {
      using Row = std::remove_pointer_t<decltype(row)>;
      FASTADV_LAUNCH(kl_grad_kernel<Row>, blocks_of_pairs<Row>(args.rows), kThreads, stream, args);
    });
  });
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
