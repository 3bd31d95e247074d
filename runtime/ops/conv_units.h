// The work of a convolution, cut into units of some pixels and some pairs of tiles.
#pragma once

#include "layout.h"
#include "ops/finish.h"
#include "ops/sizes.h"
#include "ops/weight.h"
#include "ops/window.h"

namespace hc {

constexpr size_t kGroupBytes = 256 << 10; // codes that stay in the L2 cache while pixels pass by
constexpr size_t kWantedUnits = 16;       // with fewer, pairs are spread over more units for the sake of parallel work
constexpr double kDepthwiseRate = 10;     // multiply-adds per nanosecond

// Pixels [first, first + count) of one image of the output, for some of the pairs.
struct Unit {
    size_t image, first, count;
    size_t first_pair, last_pair;
};

// body(m, row, column, count): pixels [m, m + count) of the unit lie in one row of `width` pixels, from `column`.
template <class Body>
void each_row(const Unit& unit, size_t width, const Body& body) {
    size_t row = unit.first / width, column = unit.first % width;
    for (size_t m = 0; m < unit.count; ++row, column = 0) {
        const size_t count = smaller(width - column, unit.count - m);
        body(m, row, column, count);
        m += count;
    }
}

// The work cut into units: those of one group of pairs are neighbours.
class Units {
   public:
    Units(const hc_weight& weight, const Shape& out) : pairs_(weight.pairs), pixels_(out.plane()) {
        const size_t wanted = ceil_div(pixels_, kRowsAtOnce);
        run_ = wanted ? smaller(round_up(ceil_div(pixels_, wanted), kRowBlock), kRowsAtOnce) : 1; // whole blocks of rows
        runs_ = ceil_div(pixels_, run_);
        const size_t fit = kGroupBytes / (weight.pair_bytes() + 1) + 1;
        const size_t lines = product(out.batch, runs_);
        parts_ = ceil_div(pairs_, fit);
        if (lines * parts_ < kWantedUnits) parts_ = smaller(pairs_, kWantedUnits);
        count = product(lines, parts_);
        ns = ns_of(weight, static_cast<double>(smaller(run_, pixels_))) * static_cast<double>(pairs_) /
             static_cast<double>(parts_ ? parts_ : 1);
    }

    Unit operator[](size_t i) const {
        const size_t run = i % runs_, part = i / runs_ % parts_, first = run * run_;
        return {i / runs_ / parts_, first, smaller(pixels_ - first, run_), pairs_ * part / parts_,
                pairs_ * (part + 1) / parts_};
    }

    size_t count;
    double ns; // of one

   private:
    static double ns_of(const hc_weight& weight, double rows) {
        if (!weight.depthwise()) return weight.pair_ns(static_cast<size_t>(rows));
        return static_cast<double>(kPair * weight.columns) * rows / kDepthwiseRate;
    }

    size_t pairs_, pixels_, run_, runs_, parts_;
};

// Groups of channels that the rows of a pair belong to.
struct Groups {
    Groups(const hc_weight& weight, size_t pair)
        : rows(weight.rows / weight.groups),
          begin(pair * kPair / rows),
          end((pair * kPair + static_cast<size_t>(weight.columns_of(pair)) - 1) / rows + 1) {}

    size_t rows; // of a group
    size_t begin, end;
};

// sum (m, 32) from the sums of each group of channels: multiply(group, sum).
template <class Sum, class Multiply>
void each_group(const hc_weight& weight, size_t pair, size_t m, Sum* sum, const Multiply& multiply) {
    const Groups groups(weight, pair);
    if (groups.end - groups.begin == 1) return multiply(groups.begin, sum);
    alignas(64) Sum part[kRowsAtOnce * kPair];
    for (size_t group = groups.begin; group < groups.end; ++group) {
        multiply(group, part);
        const size_t begin = group * groups.rows > pair * kPair ? group * groups.rows - pair * kPair : 0;
        const size_t end = smaller((group + 1) * groups.rows - pair * kPair, kPair);
        for (size_t i = 0; i < m; ++i)
            for (size_t n = begin; n < end; ++n) sum[i * kPair + n] = part[i * kPair + n];
    }
}

} // namespace hc
