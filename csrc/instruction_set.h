// Picks the version of the CPU kernels at run time, so that one portable wheel uses what the machine has.
#pragma once

namespace fastadv::cpu {

#ifdef FASTADV_X86
constexpr int kInstructionSets = 3;  // baseline, avx2, avx512
#else
constexpr int kInstructionSets = 1;  // baseline
#endif

// The index of the widest that the machine supports, or of the one that the environment variable FASTADV_ISA names.
int instruction_set();
const char* instruction_set_name();

// A kernel as it was compiled for each of them.
template <class Kernel>
struct Versions;

template <class... Arguments>
struct Versions<void(Arguments...)> {
  void (*version[kInstructionSets])(Arguments...);

  void operator()(Arguments... arguments) const { version[instruction_set()](arguments...); }
};

}  // namespace fastadv::cpu
