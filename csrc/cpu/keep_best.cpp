// Copies the examples that are better, and neither reads nor writes the others.
#include "../ops/keep_best.h"

#include <cstring>

#include "element.h"

namespace fastadv::cpu::FASTADV_ISA {

void keep_best(const KeepBest& args, int64_t begin, int64_t end) {
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    while (begin < end) {
      const int64_t example = begin / args.elements, next = (example + 1) * args.elements;
      const int64_t stop = next < end ? next : end;
      for (int p = 0; args.better[example] && p < args.pairs; ++p)
        memcpy(static_cast<T*>(args.to[p]) + begin, static_cast<const T*>(args.from[p]) + begin,
               static_cast<size_t>(stop - begin) * sizeof(T));
      begin = stop;
    }
  });
}

}  // namespace fastadv::cpu::FASTADV_ISA
