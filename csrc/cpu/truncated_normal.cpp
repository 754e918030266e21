// eps <- |N(0, sigma)| truncated to [0, upper], a draw a row.
#include "../math/truncated_normal.h"

#include "../ops/truncated_normal.h"
#include "element.h"

namespace fastadv::cpu::FASTADV_ISA {

void truncated_normal(const EpsSample& args, int64_t begin, int64_t end) {
  const RngState rng_state = resolved(args.rng_state);
  const TruncatedNormal distribution = truncated_normal_of(args.sigma, args.upper);
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    T* eps = static_cast<T*>(args.eps);  // [N]
    for (int64_t i = begin; i < end; ++i)
      store(eps[i], static_cast<compute_t<T>>(truncated_eps(rng_state, static_cast<uint64_t>(i), distribution)));
  });
}

}  // namespace fastadv::cpu::FASTADV_ISA
