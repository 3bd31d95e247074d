#include "attention/loops.h"
#include "vector_f32.h"

namespace hc {

// 24 sums, 4 registers of queries, one of keys: 29 of 32 registers.
extern const Attention attention_neon = attention_loops<PlainTranspose, RegisterProduct<Quad, 6, 4>>;

} // namespace hc
