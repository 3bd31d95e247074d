#include "softmax/loops.h"

namespace hc {

extern const Softmax softmax_avx512 = softmax;

} // namespace hc
