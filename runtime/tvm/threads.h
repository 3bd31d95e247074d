// TVM's own threads, as a host's pool.
#pragma once

#include <stddef.h>

namespace hc::tvm {

// The `parallel_for` of hc_exec. Where the process has no threads of TVM's, the caller's does all.
void parallel_for(void* host, void (*task)(void* arg, size_t i), void* arg, size_t count);

} // namespace hc::tvm
