// Patience by the clock that it is told, and regions of parallel work given to a pool that is late, for
// test_tvm_threads.py.
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

// How many of `regions` the pool was asked for; each task adds its number, from 1 on, to `sum`.
extern "C" size_t launches_of(size_t regions, size_t tasks, size_t late_us, size_t* sum) {
    std::atomic<size_t> total{0};
    launches = 0;
    late = std::chrono::microseconds(late_us);
    for (size_t i = 0; i < regions; ++i)
        hc::tvm::parallel_for(
            nullptr, [](void* arg, size_t task) { *static_cast<std::atomic<size_t>*>(arg) += task + 1; }, &total, tasks);
    *sum = total;
    return launches;
}

// Which of the regions a pool is asked for that lets each wait `wait_us[i]` behind `work_us[i]` of work.
extern "C" void asked(size_t regions, const size_t* work_us, const size_t* wait_us, bool* asks) {
    hc::tvm::Patience patience;
    for (size_t i = 0; i < regions; ++i) {
        asks[i] = patience.asks();
        const hc::tvm::Clock::time_point begun{}, idle = begun + std::chrono::microseconds(work_us[i]);
        if (asks[i]) patience.learn(begun, idle, idle + std::chrono::microseconds(wait_us[i]));
    }
}
