// How a check of an operator's arguments fails: by a message that begins with the Python exception that it should
// become, which fastadv/ops.py raises.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace fastadv::checks {

// The message of the thread's last failure: an exception does not cross the dispatcher with its message.
inline thread_local std::string last_failure;

template <class... Parts>
[[noreturn]] void fail(const char* exception, const char* op, const Parts&... parts) {
  std::ostringstream message;
  message << exception << ": fastadv." << op << ": ";
  (message << ... << parts);
  last_failure = message.str();
  throw std::runtime_error(last_failure);
}

template <class... Parts>
void value(bool holds, const char* op, const Parts&... parts) {
  if (!holds) fail("ValueError", op, parts...);
}

template <class... Parts>
void type(bool holds, const char* op, const Parts&... parts) {
  if (!holds) fail("TypeError", op, parts...);
}

}  // namespace fastadv::checks
