// Attention in 8 bits: a unit of work is a tile of queries of one head; units of the same keys follow one another, and
// those of a task share what is made of them.
#include <math.h>
#include <string.h>

#include "ops/attention.h"
#include "ops/parallel.h"
#include "ops/scratch.h"

namespace hc {
namespace {

constexpr double kScoreNs = 0.3; // for what is not a product

// What a task works on: the keys and values of one head, and one tile of queries.
class Worker {
   public:
    Worker(const AttentionProblem& of, const AttentionKernels& kernels)
        : of_(of),
          kernels_(kernels),
          key_pairs_(ceil_div(of.keys, kPair)),
          value_pairs_(ceil_div(of.value_size, kPair)),
          key_bytes_(product(ceil_div(of.key_size, 4), kPairLine)),
          value_bytes_(product(ceil_div(of.keys, 4), kPairLine)),
          keys_(product(key_pairs_, key_bytes_)),
          key_scale_(product(key_pairs_, kPair)),
          key_offset_(product(key_pairs_, kPair)),
          values_(product(value_pairs_, value_bytes_)),
          value_scale_(product(value_pairs_, kPair)),
          query_pitch_(round_up(of.key_size, 4)),
          queries_(product(query_pitch_, kPair)),
          score_(product(key_pairs_, kPair)),
          sums_(product(key_pairs_, kPair, kPair)),
          weight_pitch_(product(key_pairs_, kPair)),
          weights_(product(weight_pitch_, kPair)),
          mask_(of.desc.mask == HC_MASK_NONE ? 0 : product(weight_pitch_, kPair)) {
        for (size_t m = 0; m < kPair; ++m) {
            query_row_[m] = queries_.data() + m * query_pitch_;
            weight_row_[m] = weights_.data() + m * weight_pitch_;
        }
    }

    void attend(size_t b, size_t head, size_t first) {
        if (packed_ != b * of_.kv_heads + of_.kv_head(head)) pack(b, of_.kv_head(head));
        const size_t rows = of_.tile_queries(first);
        float row_scale[kPair], inverse[kPair];
        kernels_.i8.quantize_rows(of_.q.at(b, head, first), of_.q.pitch(), rows, of_.queries - first, of_.key_size,
                                  queries_.data(), query_pitch_, row_scale);
        bool finite = true;
        for (size_t m = 0; m < rows; ++m) finite = finite && isfinite(key_scales_ * row_scale[m]);
        ScoresI8 scores{};
        read_mask(b, head, first, rows, scores);
        const size_t seen = of_.desc.causal ? smaller(first + rows, of_.keys) : of_.keys;
        multiply(keys_.data(), key_bytes_, query_row_, rows, seen);
        scores.sum = sums_.data();
        scores.offset = key_offset_.data();
        scores.key_scale = key_scale_.data();
        scores.row_scale = row_scale;
        scores.rows = rows;
        scores.keys = of_.keys;
        scores.first = first;
        scores.causal = of_.desc.causal;
        scores.may_be_nan = scores.may_be_nan || !finite;
        scores.score = score_.data();
        scores.weight = weights_.data();
        scores.pitch = weight_pitch_;
        scores.inverse = inverse;
        kernels_.i8.softmax(scores);
        for (size_t m = 0; m < rows; ++m)
            if (isinf(inverse[m])) inverse[m] = of_.inverse_of_hidden();
        mix(rows, seen, inverse, of_.out(b, head, first));
    }

   private:
    void pack(size_t b, size_t kv_head) {
        kernels_.i8.pack_keys(of_.k.at(b, kv_head, 0), of_.k.pitch(), of_.keys, of_.key_size, of_.desc.scale,
                              keys_.data(), key_scale_.data(), key_offset_.data());
        kernels_.i8.pack_values(of_.v.at(b, kv_head, 0), of_.v.pitch(), of_.keys, of_.value_size, values_.data(),
                                value_scale_.data());
        key_scales_ = 0;
        for (size_t j = 0; j < of_.keys; ++j) key_scales_ += fabsf(key_scale_[j]);
        packed_ = b * of_.kv_heads + kv_head;
    }

    // The mask as floats to add, one row a query, or one for all.
    void read_mask(size_t b, size_t head, size_t first, size_t rows, ScoresI8& scores) {
        const HeadMask mask = of_.head_mask(b, head).from(first);
        if (!mask.data) return;
        scores.mask = mask_.data();
        scores.mask_step = mask.query_step ? weight_pitch_ : 0;
        if (mask.query_step || mask.data != mask_read_) fill_mask(mask, mask.query_step ? rows : 1);
        scores.may_be_nan = mask_is_nan_;
    }

    void fill_mask(const HeadMask& mask, size_t rows) {
        mask_read_ = mask.data;
        mask_is_nan_ = false;
        for (size_t m = 0; m < rows; ++m)
            for (size_t j = 0; j < weight_pitch_; ++j) {
                const int64_t at = static_cast<int64_t>(m) * mask.query_step + static_cast<int64_t>(j) * mask.key_step;
                float value = 0; // of padding
                if (j < of_.keys)
                    value = !mask.bools                                   ? static_cast<const float*>(mask.data)[at]
                            : static_cast<const uint8_t*>(mask.data)[at] ? 0.0f
                                                                          : -INFINITY;
                mask_[m * weight_pitch_ + j] = value;
                mask_is_nan_ |= value != value;
            }
    }

    // sums (pairs, rows, 32) of rows times the first `columns` columns of `weights`.
    void multiply(const int8_t* weights, size_t pair_bytes, const uint8_t* const* q, size_t rows, size_t columns) {
        Int8Call call{};
        call.q = q;
        call.rows = static_cast<int>(rows);
        call.groups = pair_bytes / kPairLine;
        for (size_t n = 0; n < columns; n += kPair, weights += pair_bytes) {
            call.weights = weights;
            call.tiles = columns - n > kTile ? 2 : 1;
            call.sum = sums_.data() + n * rows;
            if (call.tiles == 1) // the kernel leaves the other half alone, and the softmax reads what it then hides
                for (size_t m = 0; m < rows; ++m) memset(call.sum + m * kPair + kTile, 0, kTile * sizeof *call.sum);
            kernels_.int8(call);
        }
    }

    void mix(size_t rows, size_t seen, const float* inverse, float* y) {
        Int8Call call{};
        call.q = weight_row_;
        call.rows = static_cast<int>(rows);
        call.groups = ceil_div(seen, 4);
        call.sum = sums_.data();
        for (size_t n = 0; n < of_.value_size; n += kPair) {
            const size_t columns = smaller(of_.value_size - n, kPair);
            call.weights = values_.data() + n / kPair * value_bytes_;
            call.tiles = columns > kTile ? 2 : 1;
            kernels_.int8(call);
            kernels_.i8.finish(call.sum, rows, columns, &value_scale_[n], inverse, y + n, of_.out_pitch());
        }
    }

    const AttentionProblem& of_;
    const AttentionKernels& kernels_;
    size_t packed_ = SIZE_MAX; // batch and head of the keys
    float key_scales_ = 0; // sum of their sizes: where it is finite, so is each
    size_t key_pairs_, value_pairs_, key_bytes_, value_bytes_; // pairs, and the bytes of one
    Scratch<int8_t> keys_;
    Scratch<float> key_scale_;
    Scratch<int32_t> key_offset_;
    Scratch<int8_t> values_;
    Scratch<float> value_scale_;
    size_t query_pitch_;
    Scratch<uint8_t> queries_;
    Scratch<float> score_;
    Scratch<int32_t> sums_;
    size_t weight_pitch_; // keys in whole pairs
    Scratch<uint8_t> weights_;
    Scratch<float> mask_;
    const void* mask_read_ = nullptr; // where what `mask_` holds came from
    bool mask_is_nan_ = false;
    const uint8_t* query_row_[kPair];
    const uint8_t* weight_row_[kPair];
};

double tile_ns(const AttentionProblem& of, const AttentionKernels& kernels) {
    const double scores = static_cast<double>(of.keys) * kPair;
    return scores * (static_cast<double>(of.key_size + of.value_size) / kernels.rate + kScoreNs);
}

} // namespace

void attention_i8(const AttentionProblem& of, const AttentionKernels& kernels, const hc_exec* exec) {
    parallel(exec, product(of.batch, of.heads, of.tiles), tile_ns(of, kernels), [&](size_t begin, size_t end) {
        Worker worker(of, kernels);
        for (size_t unit = begin; unit < end; ++unit) {
            const size_t row = unit / of.tiles;
            worker.attend(row / of.heads, row % of.heads, unit % of.tiles * kPair);
        }
    });
}

} // namespace hc
