// Checks tensors and converts them to typed pointers, for CPU and CUDA. Uses only the stable ABI of libtorch (2.10).
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <tuple>
#include <type_traits>
#include <vector>

#include "nms.h"

namespace nms {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <typename T>
struct Inputs {
  const Segment<T>* segs;        // (N) candidates, group after group
  const T* scores;               // (N)
  const int64_t* group_offsets;  // (G + 1) first candidate of each group
  const int64_t* video_groups;   // (V + 1) first group of each video
  int64_t num_candidates, num_groups, num_videos;
  Rule<T> rule;
  int64_t cap;  // picks per group and per video; <= 0: all
};

// Picks of video v, best first, from slot group_offsets[video_groups[v]] on; unused slots hold -1 and 0.
template <typename T>
struct Outputs {
  int64_t* index;  // (N) rows of the input
  T* score;        // (N)
  int64_t* count;  // (V)

  NMS_FUNCTION void clear(int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; ++i) {
      index[i] = -1;
      score[i] = T(0);
    }
  }
};

template <typename T>
struct VoteInputs {
  const Segment<T>* kept;        // (K) segments to refine, video after video
  const int64_t* kept_offsets;   // (V + 1)
  const Segment<T>* segs;        // (N) candidates, video after video
  const T* scores;               // (N)
  const int64_t* video_offsets;  // (V + 1)
  int64_t num_kept, num_videos;
};

inline void check_candidates(const Tensor& segs, const Tensor& scores) {
  STD_TORCH_CHECK(segs.dim() == 2 && segs.size(1) == 2, "segments must be of shape (N, 2)");
  STD_TORCH_CHECK(scores.dim() == 1 && scores.size(0) == segs.size(0), "scores must be of shape (N,)");
  STD_TORCH_CHECK(segs.scalar_type() == scores.scalar_type(), "segments and scores must be of one dtype");
  STD_TORCH_CHECK(segs.is_contiguous() && scores.is_contiguous(), "segments and scores must be contiguous");
}

inline void check_offsets(const Tensor& offsets, const char* name) {
  STD_TORCH_CHECK(offsets.dim() == 1 && offsets.size(0) >= 1 && offsets.is_contiguous() &&
                      offsets.scalar_type() == ScalarType::Long,
                  name, " must be a contiguous int64 vector of at least one element");
}

template <typename F>
auto dispatch_floating(ScalarType dtype, F&& f) {
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, "only float32 and float64 are supported");
  return dtype == ScalarType::Float ? f(float{}) : f(double{});
}

template <typename F>
std::tuple<Tensor, Tensor, Tensor> dispatch_nms(const Tensor& segs, const Tensor& scores, const Tensor& group_offsets,
                                                const Tensor& video_groups, double iou_threshold, double sigma,
                                                double min_score, int64_t cap, int64_t method, F&& run) {
  check_candidates(segs, scores);
  check_offsets(group_offsets, "group_offsets");
  check_offsets(video_groups, "video_groups");
  STD_TORCH_CHECK(method >= 0 && method <= 2, "method must be 0 (hard), 1 (linear) or 2 (gaussian)");
  return dispatch_floating(segs.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t videos = video_groups.size(0) - 1;
    Tensor index = torch::stable::new_empty(group_offsets, {segs.size(0)});
    Tensor score = torch::stable::new_empty(scores, {segs.size(0)});
    Tensor count = torch::stable::new_empty(group_offsets, {videos});
    const Rule<T> rule{static_cast<Method>(method), static_cast<T>(iou_threshold), static_cast<T>(sigma),
                       static_cast<T>(min_score)};
    const Inputs<T> in{static_cast<const Segment<T>*>(segs.const_data_ptr()),
                       static_cast<const T*>(scores.const_data_ptr()),
                       static_cast<const int64_t*>(group_offsets.const_data_ptr()),
                       static_cast<const int64_t*>(video_groups.const_data_ptr()),
                       segs.size(0),
                       group_offsets.size(0) - 1,
                       videos,
                       rule,
                       cap};
    const Outputs<T> out{static_cast<int64_t*>(index.mutable_data_ptr()), static_cast<T*>(score.mutable_data_ptr()),
                         static_cast<int64_t*>(count.mutable_data_ptr())};
    run(in, out);
    return std::make_tuple(index, score, count);
  });
}

template <typename F>
Tensor dispatch_vote(const Tensor& kept, const Tensor& kept_offsets, const Tensor& segs, const Tensor& scores,
                     const Tensor& video_offsets, F&& run) {
  check_candidates(segs, scores);
  check_offsets(kept_offsets, "kept_offsets");
  check_offsets(video_offsets, "video_offsets");
  STD_TORCH_CHECK(kept.dim() == 2 && kept.size(1) == 2 && kept.is_contiguous() &&
                      kept.scalar_type() == segs.scalar_type(),
                  "kept must be contiguous, of shape (K, 2) and of the dtype of the segments");
  STD_TORCH_CHECK(kept_offsets.size(0) == video_offsets.size(0), "one range of kept segments per video is needed");
  return dispatch_floating(segs.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    Tensor out = torch::stable::new_empty(kept, {kept.size(0), int64_t{2}});
    const VoteInputs<T> in{static_cast<const Segment<T>*>(kept.const_data_ptr()),
                           static_cast<const int64_t*>(kept_offsets.const_data_ptr()),
                           static_cast<const Segment<T>*>(segs.const_data_ptr()),
                           static_cast<const T*>(scores.const_data_ptr()),
                           static_cast<const int64_t*>(video_offsets.const_data_ptr()),
                           kept.size(0),
                           video_offsets.size(0) - 1};
    run(in, static_cast<Segment<T>*>(out.mutable_data_ptr()));
    return out;
  });
}

}  // namespace nms
