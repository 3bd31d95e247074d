#include "int8/x86_half_tile.h"

namespace hc {

extern const Int8 int8_avx512vnni256 = int8;

} // namespace hc
