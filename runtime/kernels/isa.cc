#include "isa.h"

#include <stdlib.h>
#include <string.h>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace hc {
namespace {

using Set = uint32_t; // of instruction sets, by 1 << id

constexpr Set only(hc_isa isa) { return Set{1} << isa; }

// Not a chain: a CPU may have AVX-VNNI without AVX-512, or AVX-512 without AVX-VNNI.
constexpr Set kScalar = only(HC_ISA_SCALAR);
constexpr Set kAvx2 = only(HC_ISA_AVX2) | kScalar;
constexpr Set kAvxVnni = only(HC_ISA_AVXVNNI) | kAvx2;
constexpr Set kAvx512 = only(HC_ISA_AVX512) | kAvx2;
constexpr Set kAvx512Vnni256 = only(HC_ISA_AVX512VNNI256) | kAvx512;
constexpr Set kAvx512Vnni = only(HC_ISA_AVX512VNNI) | kAvx512Vnni256;
constexpr Set kAvx512Bf16 = only(HC_ISA_AVX512BF16) | kAvx512Vnni;
constexpr Set kNeon = only(HC_ISA_NEON) | kScalar;
constexpr Set kDotprod = only(HC_ISA_DOTPROD) | kNeon;
constexpr Set kI8mm = only(HC_ISA_I8MM) | kDotprod;

struct Isa {
    const char* name;
    Set includes;
};

constexpr Isa kIsas[HC_ISA_END] = {
    {"auto", 0},
    {"scalar", kScalar},
    {"avx2", kAvx2},
    {"avxvnni", kAvxVnni},
    {"avx512", kAvx512},
    {"avx512vnni256", kAvx512Vnni256},
    {"avx512vnni", kAvx512Vnni},
    {"avx512bf16", kAvx512Bf16},
    {"neon", kNeon},
    {"dotprod", kDotprod},
    {"i8mm", kI8mm},
};

struct Feature {
    const char* name;
    hc_isa needed_by; // and by all that include it
    bool present;
};

#if defined(__x86_64__)
constexpr Set kArchitecture = kAvxVnni | kAvx512Bf16;

// __builtin_cpu_supports also asks the system whether it saves the registers.
#define HC_FEATURE(name, isa) \
    { name, isa, __builtin_cpu_supports(name) != 0 }

struct Features {
    const Feature list[10] = {
        HC_FEATURE("avx2", HC_ISA_AVX2),
        HC_FEATURE("fma", HC_ISA_AVX2),
        HC_FEATURE("avxvnni", HC_ISA_AVXVNNI),
        HC_FEATURE("avx512f", HC_ISA_AVX512),
        HC_FEATURE("avx512bw", HC_ISA_AVX512),
        HC_FEATURE("avx512dq", HC_ISA_AVX512),
        HC_FEATURE("avx512vl", HC_ISA_AVX512),
        HC_FEATURE("avx512vnni", HC_ISA_AVX512VNNI256),
        HC_FEATURE("avx512vbmi", HC_ISA_AVX512VNNI),
        HC_FEATURE("avx512bf16", HC_ISA_AVX512BF16),
    };
};
#elif defined(__aarch64__)
constexpr Set kArchitecture = kI8mm;

#if defined(__linux__)
// Bits of the auxiliary vector, as Linux fixes them; C libraries learn their names late.
bool hwcap(int bit) { return getauxval(AT_HWCAP) >> bit & 1; }
bool hwcap2(int bit) { return getauxval(AT_HWCAP2) >> bit & 1; }

struct Features {
    const Feature list[3] = {
        {"asimd", HC_ISA_NEON, hwcap(1)},
        {"asimddp", HC_ISA_DOTPROD, hwcap(20)},
        {"i8mm", HC_ISA_I8MM, hwcap2(13)},
    };
};
#else
// Every 64-bit ARM has asimd; how other systems tell of the rest is not known here.
struct Features {
    const Feature list[3] = {
        {"asimd", HC_ISA_NEON, true}, {"asimddp", HC_ISA_DOTPROD, false}, {"i8mm", HC_ISA_I8MM, false}};
};
#endif
#else
constexpr Set kArchitecture = kScalar;

struct Features {
    const Feature list[1] = {{"scalar", HC_ISA_SCALAR, true}};
};
#endif

const Features& features() {
    static const Features found;
    return found;
}

bool known(hc_isa isa) { return isa > HC_ISA_AUTO && isa < HC_ISA_END; }

hc_isa read_environment() {
    const char* wanted = getenv("HC_ISA");
    if (!wanted || !*wanted) return HC_ISA_AUTO;
    for (hc_isa isa = HC_ISA_SCALAR; isa < HC_ISA_END; ++isa)
        if (!strcmp(wanted, kIsas[isa].name)) return isa;
    return HC_ISA_END;
}

} // namespace

bool runnable(hc_isa isa) {
    if (!known(isa) || kIsas[isa].includes & ~kArchitecture) return false;
    for (const Feature& feature : features().list)
        if (allows(isa, feature.needed_by) && !feature.present) return false;
    return true;
}

bool allows(hc_isa cap, hc_isa isa) { return cap == HC_ISA_AUTO || kIsas[cap].includes & only(isa); }

hc_isa cap_of_environment() {
    static const hc_isa cap = read_environment();
    return cap;
}

const char* isa_names() {
    struct List {
        char text[160] = "";
        List() {
            for (hc_isa isa = HC_ISA_SCALAR; isa < HC_ISA_END; ++isa) {
                if (*text) strcat(text, ", ");
                strcat(text, kIsas[isa].name);
            }
        }
    };
    static const List list;
    return list.text;
}

} // namespace hc

extern "C" const char* hc_cpu_feature(size_t i, int32_t* present) {
    const auto& list = hc::features().list;
    if (i >= sizeof list / sizeof *list) return nullptr;
    if (present) *present = list[i].present;
    return list[i].name;
}

extern "C" const char* hc_isa_name(hc_isa isa) {
    return isa == HC_ISA_AUTO || hc::known(isa) ? hc::kIsas[isa].name : nullptr;
}
