#include "rowwise/loops.h"

namespace hc {

extern const Rowwise rowwise_scalar = loops();

} // namespace hc
