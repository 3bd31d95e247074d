#include "rowwise/loops.h"

namespace hc {

extern const Rowwise rowwise_avx512 = plain_loops;

}  // namespace hc
