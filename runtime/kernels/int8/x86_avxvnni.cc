#include "int8/x86_half_tile.h"

namespace hc {

extern const Int8 int8_avxvnni = int8;

} // namespace hc
