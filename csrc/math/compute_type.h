// The type that a stored element is computed in: float for half precision, which is rounded once, when stored.
#pragma once

namespace fastadv {

template <class T>
struct Compute {
  using type = float;
};
template <>
struct Compute<double> {
  using type = double;
};
template <class T>
using compute_t = typename Compute<T>::type;

}  // namespace fastadv
