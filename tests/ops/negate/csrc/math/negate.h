// The arithmetic of negate_.
#pragma once

#include "macros.h"

namespace fastadv {

template <class F>
FASTADV_HOST_DEVICE F negated(F value) {
  return -value;
}

}  // namespace fastadv
