#include "norm/loops.h"

namespace hc {

extern const Norm norm_avx2 = normalize;

} // namespace hc
