// A GPU's words on a CPU, so that the kernels of runtime/cuda run where there is none: slowly, one thread after the other.
//
// Every thread of a block has a stack of its own and runs until it must wait for others: at a barrier, or where the lanes
// of a warp exchange numbers. Copies to shared memory that are still on their way have not happened: whoever reads too
// early reads NaN, or the stage before. Fragments of tensor cores lie with the lanes as the PTX ISA has them ("Matrix
// fragments for mma.m16n8k16" and "for mma.m16n8k8").
#pragma once

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

namespace hc::cuda {

using std::min;

struct Index {
    unsigned x, y, z;
};
inline Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

[[noreturn]] inline void broken(const char* what) {
    fprintf(stderr, "emulated GPU: %s (block %u, %u, %u, thread %u)\n", what, blockIdx.x, blockIdx.y, blockIdx.z,
            threadIdx.x);
    abort();
}

struct Barrier {
    unsigned wanted = 0, arrived = 0, generation = 0;
};

struct Copy {
    void* to;
    uint8_t bytes[16];
};

struct Thread {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(256 << 10);
    bool done = false;
    std::vector<std::vector<Copy>> groups = {{}}; // the last one is open
};

struct Warp {
    Barrier barrier;
    uint32_t given[32][6];
};

struct Block {
    ucontext_t scheduler;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    Barrier barrier;
    std::vector<Words> shared;
    unsigned current = 0, progress = 0;
    std::function<void()> body;
};
inline Block block;
inline Index block_size = {0, 1, 1}; // of a block of several dimensions; 0: it has one

inline Thread& self() { return block.threads[block.current]; }
inline Warp& warp() { return block.warps[block.current / 32]; }
inline unsigned lane() { return block.current % 32; }

inline void wait(Barrier& barrier) {
    const unsigned generation = barrier.generation;
    if (++barrier.arrived == barrier.wanted) {
        barrier.arrived = 0;
        ++barrier.generation;
        ++block.progress;
        return;
    }
    while (barrier.generation == generation) swapcontext(&self().context, &block.scheduler);
}

inline void enter() {
    block.body();
    self().done = true;
    ++block.progress;
}

// One block, its threads in turns.
inline void run_block(unsigned threads, size_t shared) {
    constexpr size_t guard = 4;
    const size_t words = (shared + sizeof(Words) - 1) / sizeof(Words);
    block.shared.assign(words + guard, Words{{~0u, ~0u, ~0u, ~0u}}); // NaN
    block.threads.resize(threads);
    block.warps.resize((threads + 31) / 32);
    block.barrier = {threads};
    for (unsigned i = 0; i < block.warps.size(); ++i) block.warps[i].barrier = {min(32u, threads - 32 * i)};
    for (Thread& each : block.threads) {
        each.done = false;
        each.groups = {{}};
        getcontext(&each.context);
        each.context.uc_stack.ss_sp = each.stack.data();
        each.context.uc_stack.ss_size = each.stack.size();
        each.context.uc_link = &block.scheduler;
        makecontext(&each.context, enter, 0);
    }
    for (unsigned left = threads; left;) {
        const unsigned before = block.progress;
        for (unsigned i = 0; i < threads; ++i) {
            if (block.threads[i].done) continue;
            block.current = i;
            threadIdx = {i, 0, 0};
            if (block_size.x)
                threadIdx = {i % block_size.x, i / block_size.x % block_size.y, i / block_size.x / block_size.y};
            swapcontext(&block.scheduler, &block.threads[i].context);
            left -= block.threads[i].done;
        }
        if (left && block.progress == before) broken("threads wait for others that never come");
    }
    for (const Thread& each : block.threads)
        for (const std::vector<Copy>& group : each.groups)
            if (!group.empty()) broken("a copy that nobody waited for");
    for (size_t i = words; i < words + guard; ++i)
        for (const uint32_t word : block.shared[i].at)
            if (word != ~0u) broken("a write behind the end of shared memory");
}

inline void check_aligned(const void* pointer, size_t to) {
    if (reinterpret_cast<uintptr_t>(pointer) % to) broken("an address that is not aligned");
}

inline float half_to_float(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                       : exponent     ? ldexpf(static_cast<float>(1024 + fraction), exponent - 25)
                                      : ldexpf(static_cast<float>(fraction), -24);
    return bits >> 15 ? -size : size;
}

inline uint16_t float_to_half(float x) {
    const uint16_t sign = signbit(x) ? 0x8000 : 0;
    const float size = fabsf(x);
    if (isnan(x)) return 0x7FFF;
    if (size >= 65520.0f) return sign | 0x7C00;
    int exponent = 0;
    frexpf(size, &exponent);
    const int step = std::max(exponent, -13) - 11; // the exponent of the last bit
    const int units = static_cast<int>(nearbyintf(ldexpf(size, -step)));
    const int biased = step + 24; // of numbers from 1024 to 2047 units
    return static_cast<uint16_t>(sign | (units >= 1024 ? ((biased + 1) << 10) + units - 1024 : units));
}

} // namespace emulated

inline uint32_t __float_as_uint(float x) {
    uint32_t y;
    memcpy(&y, &x, 4);
    return y;
}
inline float __uint_as_float(uint32_t x) {
    float y;
    memcpy(&y, &x, 4);
    return y;
}

inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t which) {
    const uint64_t bytes = uint64_t{b} << 32 | a;
    uint32_t found = 0;
    for (int i = 0; i < 4; ++i) found |= static_cast<uint32_t>(bytes >> 8 * (which >> 4 * i & 7) & 0xFF) << 8 * i;
    return found;
}

inline void __syncthreads() { emulated::wait(emulated::block.barrier); }

inline float __shfl_xor_sync(uint32_t, float value, unsigned mask) {
    emulated::Warp& warp = emulated::warp();
    const unsigned lane = emulated::lane();
    warp.given[lane][0] = __float_as_uint(value);
    emulated::wait(warp.barrier);
    const float found = __uint_as_float(warp.given[lane ^ mask][0]);
    emulated::wait(warp.barrier);
    return found;
}

inline uint8_t* shared_memory() { return reinterpret_cast<uint8_t*>(emulated::block.shared.data()); }

inline Words load_once(const void* from) {
    emulated::check_aligned(from, 16);
    Words words;
    memcpy(&words, from, sizeof words);
    return words;
}
inline Words load_cached(const void* from) { return load_once(from); }

inline void copy_async(void* to, const void* from, bool exists) {
    emulated::check_aligned(to, 16);
    emulated::check_aligned(from, 16);
    emulated::Copy copy{to, {}};
    if (exists) memcpy(copy.bytes, from, sizeof copy.bytes);
    emulated::self().groups.back().push_back(copy);
}
inline void commit_copies() { emulated::self().groups.emplace_back(); }

template <int Left>
void wait_copies() {
    auto& groups = emulated::self().groups;
    while (groups.size() > Left + 1) {
        for (const emulated::Copy& copy : groups.front()) memcpy(copy.to, copy.bytes, sizeof copy.bytes);
        groups.erase(groups.begin());
    }
}

inline float to_float(float x) { return x; }
inline float to_float(Half x) { return emulated::half_to_float(x.bits); }
inline float to_float(Bf16 x) { return __uint_as_float(uint32_t{x.bits} << 16); }

template <class T>
T rounded(float x);
template <>
inline float rounded<float>(float x) {
    return x;
}
template <>
inline Half rounded<Half>(float x) {
    return {emulated::float_to_half(x)};
}
template <>
inline Bf16 rounded<Bf16>(float x) {
    const uint32_t bits = __float_as_uint(x);
    return {static_cast<uint16_t>(isnan(x) ? 0x7FFF : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)};
}

inline float rounded_tf32(float x) {
    return isfinite(x) ? __uint_as_float((__float_as_uint(x) + 0x1000) & ~0x1FFFu) : x;
}

// c += a b for fragments of which lane (g, t) gives a in 4 words and b in 2; `of` (word, i) is number i of those in a word.
template <int Depth, class Of>
void multiply_fragments(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Of of) {
    emulated::Warp& warp = emulated::warp();
    const unsigned lane = emulated::lane(), group = lane / 4, thread = lane % 4;
    memcpy(warp.given[lane], a, sizeof a);
    memcpy(warp.given[lane] + 4, b, sizeof b);
    emulated::wait(warp.barrier);
    constexpr unsigned each = Depth / 8; // numbers in a word
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = group + i / 2 * 8, column = thread * 2 + i % 2;
        for (unsigned k = 0; k < Depth; ++k) {
            const unsigned upper = k / (4 * each), owner = k % (4 * each) / each, within = k % each;
            const uint32_t of_a = warp.given[row % 8 * 4 + owner][row / 8 + 2 * upper];
            const uint32_t of_b = warp.given[column * 4 + owner][4 + upper];
            c[i] += of(of_a, within) * of(of_b, within);
        }
    }
    emulated::wait(warp.barrier);
}

template <class T>
void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], T) {
    multiply_fragments<16>(c, a, b, [](uint32_t word, unsigned i) {
        return to_float(T{static_cast<uint16_t>(word >> 16 * i)});
    });
}

inline void mma_tf32(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
    uint32_t of_a[4], of_b[2];
    memcpy(of_a, a, sizeof of_a);
    memcpy(of_b, b, sizeof of_b);
    // The lower 13 bits are ignored.
    multiply_fragments<8>(c, of_a, of_b, [](uint32_t word, unsigned) { return __uint_as_float(word & ~0x1FFFu); });
}

} // namespace hc::cuda
