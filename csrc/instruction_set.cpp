#include "instruction_set.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace fastadv::cpu {
namespace {

struct Compiled {
  const char* name;
  bool supported;
};

const Compiled& compiled(int set) {
  static const Compiled sets[kInstructionSets] = {
      {"baseline", true},
#ifdef FASTADV_X86
      {"avx2", __builtin_cpu_supports("avx2") != 0},
      {"avx512", __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")},
#endif
  };
  return sets[set];
}

int choose() {
  const char* wanted = std::getenv("FASTADV_ISA");
  for (int set = kInstructionSets - 1; set >= 0; --set)
    if (compiled(set).supported && (wanted == nullptr || std::strcmp(wanted, compiled(set).name) == 0)) return set;
  throw std::runtime_error(std::string("FASTADV_ISA=") + wanted +
                           " names no instruction set that was compiled and that this machine supports "
                           "(avx512, avx2, baseline)");
}

}  // namespace

int instruction_set() {
  static const int chosen = choose();
  return chosen;
}

const char* instruction_set_name() { return compiled(instruction_set()).name; }

}  // namespace fastadv::cpu
