// Instruction sets: what each includes, what this CPU has, and what HC_ISA allows.
#pragma once

#include "hashcompile.h"

namespace hc {

// All that `isa` includes, this CPU and its system have.
bool runnable(hc_isa isa);

// A choice capped by `cap` may take `isa`: `cap` includes it, or is HC_ISA_AUTO.
bool allows(hc_isa cap, hc_isa isa);

// What HC_ISA names: HC_ISA_AUTO if it is not set, HC_ISA_END if it names no instruction set.
hc_isa cap_of_environment();

// Every name, with commas between.
const char* isa_names();

} // namespace hc
