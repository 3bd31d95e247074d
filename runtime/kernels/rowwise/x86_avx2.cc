#include "rowwise/loops.h"

namespace hc {

extern const Rowwise rowwise_avx2 = loops();

} // namespace hc
