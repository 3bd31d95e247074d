#include "norm/loops.h"

namespace hc {

extern const Norm norm_avx512 = normalize;

} // namespace hc
