// Regions of parallel work given to a pool like TVM's, of which one thread comes late, for test_tvm_threads.py.
#include "tvm/threads.cc"

namespace {

std::chrono::microseconds late;
size_t launches;

} // namespace

// Two threads, which both have run when it returns.
int TVMBackendParallelLaunch(int (*lambda)(int, TVMParallelGroupEnv*, void*), void* data, int) {
    ++launches;
    std::thread other([=] {
        std::this_thread::sleep_for(late);
        lambda(1, nullptr, data);
    });
    lambda(0, nullptr, data);
    other.join();
    return 0;
}

// How many of `regions` the pool was asked for; each task adds its share to `sum`, and takes `task_us`.
extern "C" size_t launches_of(size_t regions, size_t tasks, size_t task_us, size_t late_us, size_t* sum) {
    struct Work {
        std::atomic<size_t> sum{0};
        size_t us;
    } work;
    work.us = task_us;
    launches = 0;
    late = std::chrono::microseconds(late_us);
    for (size_t i = 0; i < regions; ++i)
        hc::tvm::parallel_for(
            nullptr,
            [](void* arg, size_t task) {
                Work& work = *static_cast<Work*>(arg);
                const auto end = hc::tvm::Clock::now() + std::chrono::microseconds(work.us);
                while (hc::tvm::Clock::now() < end) {
                }
                work.sum += task + 1;
            },
            &work, tasks);
    *sum = work.sum;
    return launches;
}
