#include "isa.h"

#include <stdlib.h>
#include <string.h>

namespace hc {
namespace {

constexpr const char* kNames[HC_ISA_END] = {"auto", "scalar", "avx2", "avx512", "avx512vnni"};

struct Feature {
    const char* name;
    hc_isa needed_by;
    bool present;
};

// __builtin_cpu_supports also asks the system whether it saves the registers.
#if defined(__x86_64__)
#define HC_FEATURE(name, isa) {name, isa, __builtin_cpu_supports(name) != 0}
#endif

struct Features {
#if defined(__x86_64__)
    static constexpr size_t count = 8;
    const Feature list[count] = {
        HC_FEATURE("avx2", HC_ISA_AVX2),
        HC_FEATURE("fma", HC_ISA_AVX2),
        HC_FEATURE("avx512f", HC_ISA_AVX512),
        HC_FEATURE("avx512bw", HC_ISA_AVX512),
        HC_FEATURE("avx512dq", HC_ISA_AVX512),
        HC_FEATURE("avx512vl", HC_ISA_AVX512),
        HC_FEATURE("avx512vnni", HC_ISA_AVX512VNNI),
        HC_FEATURE("avx512vbmi", HC_ISA_AVX512VNNI),
    };
#else
    static constexpr size_t count = 0;
    const Feature* list = nullptr;
#endif
};

const Features& features() {
    static const Features found;
    return found;
}

hc_isa cap_from_environment() {
    const char* wanted = getenv("HC_ISA");
    if (!wanted || !*wanted) return HC_ISA_END - 1;
    for (hc_isa isa = HC_ISA_SCALAR; isa < HC_ISA_END; ++isa)
        if (!strcmp(wanted, kNames[isa])) return isa;
    return HC_ISA_END;
}

} // namespace

bool runnable(hc_isa isa) {
    const Features& found = features();
    if (isa > HC_ISA_SCALAR && found.count == 0) return false;
    for (size_t i = 0; i < found.count; ++i)
        if (found.list[i].needed_by <= isa && !found.list[i].present) return false;
    return isa > HC_ISA_AUTO && isa < HC_ISA_END;
}

hc_isa automatic_isa() {
    static const hc_isa cap = cap_from_environment();
    return cap;
}

} // namespace hc

extern "C" const char* hc_cpu_feature(size_t i, int32_t* present) {
    const hc::Features& found = hc::features();
    if (i >= found.count) return nullptr;
    if (present) *present = found.list[i].present;
    return found.list[i].name;
}

extern "C" const char* hc_isa_name(hc_isa isa) {
    return isa >= HC_ISA_AUTO && isa < HC_ISA_END ? hc::kNames[isa] : nullptr;
}
