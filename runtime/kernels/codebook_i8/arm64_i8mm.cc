#include "codebook_i8/arm64_quarter_tile.h"

namespace hc {

extern const CodebookI8 codebook_i8_i8mm[8] = {
    {multiply<1>, decode<1>, 1}, {multiply<2>, decode<2>, 1}, {multiply<3>, decode<3>, 1}, {multiply<4>, decode<4>, 1},
    {multiply<5>, decode<5>, 1}, {multiply<6>, decode<6>, 1}, {multiply<7>, decode<7>, 1}, {multiply<8>, decode<8>, 1}};

} // namespace hc
