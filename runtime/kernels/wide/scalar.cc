#include "wide/loops.h"

namespace hc {

extern const Wide wide_scalar = {project, near_one_by_one, products, coded_products};

} // namespace hc
