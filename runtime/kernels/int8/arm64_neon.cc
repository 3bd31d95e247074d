#include "int8/arm64_quarter_tile.h"

namespace hc {
namespace {

void int8(const Int8Call& call) { multiply_rows(call, 0, call.rows); }

} // namespace

extern const Int8 int8_neon = int8;

} // namespace hc
