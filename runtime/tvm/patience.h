// When to ask TVM's pool for threads, and when to do without.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace hc::tvm {

using Clock = std::chrono::steady_clock;

// TVM's pool waits until each of its threads has run, also for one that found nothing left to do. On a machine that others
// use, too, such a thread may come milliseconds late, and a model has a hundred regions. So a pool that was waited for
// longer than the work took is left alone for a while, and each time for twice as long.
class Patience {
   public:
    // May the pool be asked now?
    bool asks() {
        const uint32_t left = pause_.load(std::memory_order_relaxed);
        if (left) pause_.store(left - 1, std::memory_order_relaxed);
        return !left;
    }

    // A region began; the thread that asked for it found no task left; all threads had run.
    void learn(Clock::time_point begun, Clock::time_point idle, Clock::time_point over) {
        const uint32_t next = next_.load(std::memory_order_relaxed);
        if (over - idle > kNoise && over - idle > idle - begun) {
            pause_.store(next, std::memory_order_relaxed);
            if (next < kLongest) next_.store(2 * next, std::memory_order_relaxed);
        } else if (next > kShortest) {
            next_.store(next - next / 8, std::memory_order_relaxed);
        }
    }

   private:
    static constexpr std::chrono::microseconds kNoise{20};
    static constexpr uint32_t kShortest = 8, kLongest = 4096; // regions

    std::atomic<uint32_t> pause_{0}, next_{kShortest};
};

} // namespace hc::tvm
