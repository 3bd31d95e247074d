#include "norm/loops.h"

namespace hc {

extern const Norm norm_scalar = normalize;

} // namespace hc
