// Activations in shared memory: a stage of K for some rows of X, twice, so that one is copied while one is multiplied.
//
// A chunk is 16 bytes of neighbouring k. The four lanes of a group want chunks a run apart, at once: these lie side by side,
// and rows are 64 bytes out of step, so that eight lanes, which are served together, read from all 32 banks.
#pragma once

#include "cuda/source.h"

namespace hc::cuda {

template <class T, int Rows, int Run>
class Activations {
    static constexpr int kPer = 16 / sizeof(T); // numbers of a chunk
    static constexpr int kChunks = kDepth / kPer;
    static constexpr int kPitch = 16 * kChunks + 64;
    static constexpr int kStage = Rows * kPitch;
    static constexpr int kInRun = Run / kPer;
    static constexpr int kAtOnce = kThreads / kChunks; // rows that the threads copy together
    using Place = typename Source<T>::Place;

 public:
    static constexpr int bytes = 2 * kStage + Rows * static_cast<int>(sizeof(Place));

    __device__ Activations(const Source<T>& source, uint8_t* shared, int first_row, int group)
        : source_(source), stages_(shared), places_(reinterpret_cast<Place*>(shared + 2 * kStage)), group_(group) {
        for (int i = static_cast<int>(threadIdx.x); i < Rows; i += kThreads) places_[i] = source.place(first_row + i);
    }

    // Begin to copy stage `number` of K, for whoever waits for the copies. Threads have met since the last one was made,
    // and since it was multiplied.
    __device__ void copy(int number) const {
        const int chunk = static_cast<int>(threadIdx.x) % kChunks, first = static_cast<int>(threadIdx.x) / kChunks;
        uint8_t* const to = stages_ + number % 2 * kStage + 16 * position(chunk);
        const int k = number * kDepth + chunk * kPer;
        if (source_.whole) {
            const bool exists = k < source_.k;
            const typename Source<T>::Tap tap = source_.tap(exists ? k : 0, group_);
#pragma unroll
            for (int i = first; i < Rows; i += kAtOnce) {
                const T* const from = exists ? source_.find(places_[i], tap) : nullptr;
                copy_async(to + i * kPitch, from ? from : source_.x, from != nullptr);
            }
        } else {
            for (int e = 0; e < kPer; ++e) {
                const bool exists = k + e < source_.k;
                const typename Source<T>::Tap tap = source_.tap(exists ? k + e : 0, group_);
                for (int i = first; i < Rows; i += kAtOnce) {
                    const T* const from = exists ? source_.find(places_[i], tap) : nullptr;
                    reinterpret_cast<T*>(to + i * kPitch)[e] = from ? *from : T{};
                }
            }
        }
        commit_copies();
    }

    // Chunk `i` of the run of `lane` in slab `slab` of a stage, in row `row`.
    __device__ __forceinline__ Words chunk(int number, int row, int slab, int i, const Lane& lane) const {
        const uint8_t* const from = stages_ + number % 2 * kStage + row * kPitch;
        return *reinterpret_cast<const Words*>(from + 16 * ((slab * kInRun + i) * 4 + lane.thread));
    }

 private:
    // Chunks go by run, lane, slab in K; here by lane, run, slab.
    static __device__ __forceinline__ int position(int chunk) {
        return (chunk / (4 * kInRun) * kInRun + chunk % kInRun) * 4 + chunk / kInRun % 4;
    }

    const Source<T>& source_;
    uint8_t* stages_;
    Place* places_;
    int group_;
};

} // namespace hc::cuda
