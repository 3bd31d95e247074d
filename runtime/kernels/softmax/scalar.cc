#include "softmax/loops.h"

namespace hc {

extern const Softmax softmax_scalar = softmax;

} // namespace hc
