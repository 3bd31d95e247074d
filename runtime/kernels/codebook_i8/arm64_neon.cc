#include "codebook_i8/arm64_quarter_tile.h"

namespace hc {

extern const CodebookI8 codebook_i8_neon[8] = {
    {multiply<1>, decode<1>, 2}, {multiply<2>, decode<2>, 2}, {multiply<3>, decode<3>, 2}, {multiply<4>, decode<4>, 2},
    {multiply<5>, decode<5>, 2}, {multiply<6>, decode<6>, 2}, {multiply<7>, decode<7>, 2}, {multiply<8>, decode<8>, 2}};

} // namespace hc
