// Work cut into tasks for the host's pool.
#pragma once

#include <atomic>

#include "ops/error.h"
#include "ops/sizes.h"

namespace hc {

constexpr double kTaskNs = 4000;  // a task shorter than this is not worth its start
constexpr size_t kMostTasks = 32; // some more than threads, so that a late thread costs little

// body(begin, end) over [0, units), `unit_ns` each. What goes wrong in a task, or with a host that does not run each of
// them once, is reported by the caller's thread.
template <class Body>
void parallel(const hc_exec* exec, size_t units, double unit_ns, const Body& body) {
    const double wanted = static_cast<double>(units) * unit_ns / kTaskNs;
    const size_t most = units < kMostTasks ? units : kMostTasks;
    const size_t tasks = wanted < static_cast<double>(most) ? static_cast<size_t>(wanted) : most;
    if (tasks <= 1 || !exec || !exec->parallel_for) {
        if (units) body(size_t{0}, units);
        return;
    }
    struct Job {
        const Body& body;
        size_t units, tasks;
        std::atomic<hc_code> code{HC_OK};
        std::atomic<size_t> done{0};
    } job{body, units, tasks};
    exec->parallel_for(
        exec->host,
        [](void* arg, size_t i) {
            Job& job = *static_cast<Job*>(arg);
            const auto start = [&](size_t task) {
                return job.units / job.tasks * task + (task < job.units % job.tasks ? task : job.units % job.tasks);
            };
            const hc_code code = guarded(nullptr, [&] { job.body(start(i), start(i + 1)); });
            if (code != HC_OK) job.code = code;
            ++job.done;
        },
        &job, tasks);
    const size_t done = job.done;
    if (done != tasks) fail(HC_INTERNAL, "the host ran %zu of %zu parallel tasks", done, tasks);
    const hc_code code = job.code;
    if (code != HC_OK)
        fail(code, "a parallel task failed: %s", code == HC_OUT_OF_MEMORY ? "out of memory" : "internal error");
}

} // namespace hc
