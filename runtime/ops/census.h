// How many threads a host's pool has: a host does not say, but shows it by how many tasks run at once.
#pragma once

#include <atomic>

#include "ops/error.h"

namespace hc {

class Census {
   public:
    // `most`: the largest number seen so far, raised here. `host` may be NULL.
    Census(const hc_exec* host, std::atomic<size_t>& most) : host_(host), most_(most), counted_{this, count_tasks} {}
    Census(const Census&) = delete;

    const hc_exec* exec() const { return host_ ? &counted_ : nullptr; }

   private:
    static void raise(std::atomic<size_t>& most, size_t to) {
        size_t seen = most;
        while (seen < to && !most.compare_exchange_weak(seen, to)) {
        }
    }

    static void count_tasks(void* self, void (*task)(void*, size_t), void* arg, size_t count) {
        struct Job {
            void (*task)(void*, size_t);
            void* arg;
            std::atomic<size_t> running{0}, most{0};
        } job{task, arg};
        const Census& census = *static_cast<Census*>(self);
        census.host_->parallel_for(
            census.host_->host,
            [](void* given, size_t i) {
                Job& job = *static_cast<Job*>(given);
                raise(job.most, ++job.running);
                job.task(job.arg, i);
                --job.running;
            },
            &job, count);
        raise(census.most_, job.most);
    }

    const hc_exec* host_;
    std::atomic<size_t>& most_;
    hc_exec counted_;
};

} // namespace hc
