// How C++ errors become codes: they are thrown inside, and caught at the C ABI.
#pragma once

#include <stdarg.h>
#include <stdio.h>

#include <new>

#include "hashcompile.h"

namespace hc {

struct Failure {
    hc_code code;
    char text[sizeof(hc_error::text)];
};

[[noreturn]] inline void fail(hc_code code, const char* format, ...) __attribute__((format(printf, 2, 3)));

[[noreturn]] inline void fail(hc_code code, const char* format, ...) {
    Failure failure{code, {}};
    va_list values;
    va_start(values, format);
    vsnprintf(failure.text, sizeof failure.text, format, values);
    va_end(values);
    throw failure;
}

// Runs `body`; whatever it throws becomes the returned code and the text in `error`.
template <class Body>
hc_code guarded(hc_error* error, Body&& body) noexcept {
    const auto report = [error](hc_code code, const char* text) {
        if (error) snprintf(error->text, sizeof error->text, "%s", text);
        return code;
    };
    try {
        body();
        return HC_OK;
    } catch (const Failure& failure) {
        return report(failure.code, failure.text);
    } catch (const std::bad_alloc&) {
        return report(HC_OUT_OF_MEMORY, "out of memory");
    } catch (...) {
        return report(HC_INTERNAL, "unexpected exception");
    }
}

} // namespace hc
