// Uninitialised memory for one call, aligned to a cache line.
#pragma once

#include <new>

#include "ops/sizes.h"

namespace hc {

template <class T>
class Scratch {
   public:
    explicit Scratch(size_t count)
        : data_(static_cast<T*>(::operator new(product(count ? count : 1, sizeof(T)), std::align_val_t{64}))) {}
    ~Scratch() { if (data_) ::operator delete(data_, std::align_val_t{64}); }
    Scratch(Scratch&& from) noexcept : data_(from.data_) { from.data_ = nullptr; }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    T* data() { return data_; }
    const T* data() const { return data_; }
    T& operator[](size_t i) { return data_[i]; }
    const T& operator[](size_t i) const { return data_[i]; }

   private:
    T* data_;
};

} // namespace hc
