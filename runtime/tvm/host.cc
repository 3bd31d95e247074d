#include "tvm/host.h"

#include <atomic>

namespace hc::tvm {

hc_exec Call::exec() {
    return {nullptr, [](void*, void (*task)(void*, size_t), void* arg, size_t count) {
                struct Job {
                    void (*task)(void*, size_t);
                    void* arg;
                    size_t count;
                    std::atomic<size_t> next{0};
                } job{task, arg, count};
                const auto claim = [](int, TVMParallelGroupEnv*, void* data) {
                    Job& job = *static_cast<Job*>(data);
                    for (size_t i; (i = job.next++) < job.count;) job.task(job.arg, i);
                    return 0;
                };
                if (TVMBackendParallelLaunch) TVMBackendParallelLaunch(claim, &job, 0);
                claim(0, nullptr, &job); // without TVM's threads, all of them
            }};
}

} // namespace hc::tvm
