#include "codebook_i8/x86_half_tile.h"

namespace hc {

extern const CodebookI8 codebook_i8_avxvnni[8] = {
    {multiply<1>, decode<1>, 4}, {multiply<2>, decode<2>, 4}, {multiply<3>, decode<3>, 4}, {multiply<4>, decode<4>, 4},
    {multiply<5>, decode<5>, 4}, {multiply<6>, decode<6>, 4}, {multiply<7>, decode<7>, 4}, {multiply<8>, decode<8>, 4}};

} // namespace hc
