#include "softmax/loops.h"

namespace hc {

extern const Softmax softmax_avx2 = softmax;

} // namespace hc
