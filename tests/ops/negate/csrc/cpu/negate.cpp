// values <- -values, in place.
#include "../ops/negate.h"

#include "../math/negate.h"
#include "element.h"

namespace fastadv::cpu::FASTADV_ISA {

void negate(const Negate& args, int64_t begin, int64_t end) {
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    T* values = static_cast<T*>(args.values);  // [...]
    for (int64_t i = begin; i < end; ++i) store(values[i], negated(load(values[i])));
  });
}

}  // namespace fastadv::cpu::FASTADV_ISA
