#include "tvm/threads.h"

#include <atomic>
#include <thread>

#include "tvm/api.h"
#include "tvm/patience.h"

namespace hc::tvm {
namespace {

struct Job {
    void (*task)(void*, size_t);
    void* arg;
    size_t count;
    std::atomic<size_t> next{0};
    const std::thread::id asks = std::this_thread::get_id();
    Clock::time_point idle{}; // since when the thread that asks is; some pools give it no part

    void run() {
        for (size_t i; (i = next++) < count;) task(arg, i);
        if (std::this_thread::get_id() == asks) idle = Clock::now();
    }
};

int run(int, TVMParallelGroupEnv*, void* job) {
    static_cast<Job*>(job)->run();
    return 0;
}

} // namespace

void parallel_for(void*, void (*task)(void*, size_t), void* arg, size_t count) {
    static Patience patience;
    Job job{task, arg, count};
    if (TVMBackendParallelLaunch && patience.asks()) {
        const auto begun = Clock::now();
        TVMBackendParallelLaunch(run, &job, 0);
        if (job.idle != Clock::time_point{}) patience.learn(begun, job.idle, Clock::now());
    }
    job.run();
}

} // namespace hc::tvm
