// What a library of TVM's asks of its process: it is told the stream of each device, and its errors are kept.
#include <stdint.h>
#include <stdio.h>

#define HC_EXPORT extern "C" __attribute__((visibility("default")))

static char raised[512];

HC_EXPORT void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* message) {
    snprintf(raised, sizeof raised, "%s: %s", kind, message);
}

HC_EXPORT void* TVMFFIEnvGetStream(int32_t device_type, int32_t device_id) {
    return reinterpret_cast<void*>(static_cast<uintptr_t>(1000 * device_type + device_id));
}

HC_EXPORT const char* emulated_error() { return raised; }
