// Picks the CPU kernels at run time, so that one portable wheel uses what the machine has.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace fastadv::cpu {

namespace baseline {
extern const Kernels table;
}
#ifdef FASTADV_X86
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
#endif

namespace {

struct Candidate {
  InstructionSet set;
  bool supported;
};

InstructionSet choose() {
  const Candidate candidates[] = {
#ifdef FASTADV_X86
      {{"avx512", &avx512::table},
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl")},
      {{"avx2", &avx2::table}, __builtin_cpu_supports("avx2") != 0},
#endif
      {{"baseline", &baseline::table}, true},
  };
  const char* wanted = std::getenv("FASTADV_ISA");
  for (const Candidate& candidate : candidates)
    if (candidate.supported && (wanted == nullptr || std::strcmp(wanted, candidate.set.name) == 0))
      return candidate.set;
  throw std::runtime_error(std::string("FASTADV_ISA=") + wanted +
                           " names no instruction set that was compiled and that this machine supports "
                           "(avx512, avx2, baseline)");
}

}  // namespace

const InstructionSet& instruction_set() {
  static const InstructionSet chosen = choose();
  return chosen;
}

}  // namespace fastadv::cpu
