#include "attention/loops.h"
#include "vector_f32.h"

namespace hc {

extern const Attention attention_avx2 = attention_loops<PlainTranspose, RegisterProduct<Ymm, 4, 2>>;

} // namespace hc
