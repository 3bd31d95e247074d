// Instruction sets: what this CPU has, and what HC_ISA allows.
#pragma once

#include "hashcompile.h"

namespace hc {

bool runnable(hc_isa isa);

// The highest set that HC_ISA_AUTO may take, or HC_ISA_END if HC_ISA names none.
hc_isa automatic_isa();

} // namespace hc
