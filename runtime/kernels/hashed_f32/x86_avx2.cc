#include "hashed_f32/loops.h"
#include "vector_f32.h"

namespace hc {
namespace {

void multiply(const HashedCall& call) { multiply_all<Ymm, kHashedRows / 2>(call); }

} // namespace

extern const HashedF32 hashed_f32_avx2 = multiply;

} // namespace hc
