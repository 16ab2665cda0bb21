// CPU kernels, parallel over videos. The result of a video depends on its own inputs alone, so the number of threads
// does not matter.
#include "nms_ops.h"

namespace nms {
namespace {

// Checks that offsets rise from 0 to `end`; with others the kernels would read outside their arrays.
void check_ranges(const int64_t* offsets, int64_t num_ranges, int64_t end, const char* name) {
  bool good = offsets[0] == 0 && offsets[num_ranges] == end;
  for (int64_t i = 0; good && i < num_ranges; ++i) good = offsets[i] <= offsets[i + 1];
  STD_TORCH_CHECK(good, name, " must rise from 0 to ", end);
}

template <typename T>
void run_lazy(const Inputs<T>& in, const Outputs<T>& out, int64_t video) {
  const int64_t first = in.video_groups[video], end = in.video_groups[video + 1];
  std::vector<LazyGroup<T>> groups;
  groups.reserve(end - first);
  std::vector<Best<T>> heads;  // score of each group's next pick, and index of the group
  const auto after = [](const Best<T>& a, const Best<T>& b) { return b.before(a); };  // std heaps keep the largest first
  for (int64_t g = first; g < end; ++g) {
    const int64_t begin = in.group_offsets[g];
    groups.emplace_back(in.rule, in.segs + begin, in.scores + begin, in.group_offsets[g + 1] - begin);
    if (groups.back().ready()) heads.push_back({groups.back().top().score, g - first});
  }
  std::make_heap(heads.begin(), heads.end(), after);
  const int64_t start = in.group_offsets[first];
  int64_t slot = start, count = 0;
  while (!heads.empty() && (in.cap <= 0 || count < in.cap)) {
    std::pop_heap(heads.begin(), heads.end(), after);
    const int64_t g = heads.back().index;
    heads.pop_back();
    LazyGroup<T>& group = groups[g];
    out.index[slot] = in.group_offsets[first + g] + group.top().index;
    out.score[slot++] = group.top().score;
    ++count;
    group.take_top();
    if (group.ready()) {
      heads.push_back({group.top().score, g});
      std::push_heap(heads.begin(), heads.end(), after);
    }
  }
  out.clear(slot, in.group_offsets[end]);
  out.count[video] = count;
}

// The algorithm of the CUDA kernels with a team of one thread: NMS of each group, then the merge by rank.
template <typename T>
void run_greedy(const Inputs<T>& in, const Outputs<T>& out, int64_t video) {
  const int64_t first = in.video_groups[video], end = in.video_groups[video + 1];
  const int64_t start = in.group_offsets[first], n = in.group_offsets[end] - start;
  std::vector<T> live(n), score(n);
  std::vector<int64_t> index(n), group_start(end - first), group_count(end - first);
  SerialTeam<T> team;
  for (int64_t g = first; g < end; ++g) {
    const int64_t begin = in.group_offsets[g], at = begin - start;
    group_start[g - first] = at;
    group_count[g - first] = greedy_group(team, in.rule, in.segs + begin, in.scores + begin, in.group_offsets[g + 1] - begin,
                                          in.cap, live.data(), index.data() + at, score.data() + at);
  }
  out.clear(start, start + n);
  int64_t count = 0;
  for (int64_t g = 0; g < end - first; ++g) {
    for (int64_t k = 0; k < group_count[g]; ++k) {
      const int64_t rank =
          merged_rank(g, k, int64_t{0}, end - first, group_start.data(), group_count.data(), score.data());
      if (in.cap > 0 && rank >= in.cap) continue;
      out.index[start + rank] = in.group_offsets[first + g] + index[group_start[g] + k];
      out.score[start + rank] = score[group_start[g] + k];
      ++count;
    }
  }
  out.count[video] = count;
}

template <bool lazy>
std::tuple<Tensor, Tensor, Tensor> nms_cpu(Tensor segs, Tensor scores, Tensor group_offsets, Tensor video_groups,
                                           double iou_threshold, double sigma, double min_score, int64_t cap,
                                           int64_t method) {
  return dispatch_nms(segs, scores, group_offsets, video_groups, iou_threshold, sigma, min_score, cap, method,
                      [](const auto& in, const auto& out) {
                        check_ranges(in.group_offsets, in.num_groups, in.num_candidates, "group_offsets");
                        check_ranges(in.video_groups, in.num_videos, in.num_groups, "video_groups");
                        torch::stable::parallel_for(0, in.num_videos, 1, [&](int64_t begin, int64_t end) {
                          for (int64_t video = begin; video < end; ++video) {
                            lazy ? run_lazy(in, out, video) : run_greedy(in, out, video);
                          }
                        });
                      });
}

Tensor vote_cpu(Tensor kept, Tensor kept_offsets, Tensor segs, Tensor scores, Tensor video_offsets,
                double iou_threshold) {
  return dispatch_vote(kept, kept_offsets, segs, scores, video_offsets, [&](const auto& in, auto* out) {
    using T = typename std::decay_t<decltype(*out)>::Scalar;
    const T threshold = static_cast<T>(iou_threshold);
    check_ranges(in.kept_offsets, in.num_videos, in.num_kept, "kept_offsets");
    check_ranges(in.video_offsets, in.num_videos, segs.size(0), "video_offsets");
    torch::stable::parallel_for(0, in.num_videos, 1, [&](int64_t first, int64_t last) {
      for (int64_t video = first; video < last; ++video) {
        const int64_t begin = in.video_offsets[video];
        const StartGrid<T> grid(in.segs + begin, in.video_offsets[video + 1] - begin);
        for (int64_t k = in.kept_offsets[video]; k < in.kept_offsets[video + 1]; ++k) {
          out[k] = grid.vote(in.kept[k], in.scores + begin, threshold);
        }
      }
    });
  });
}

}  // namespace
}  // namespace nms

STABLE_TORCH_LIBRARY(actionformer_nt, m) {
  m.def(
      "nms_1d(Tensor segs, Tensor scores, Tensor group_offsets, Tensor video_groups, float iou_threshold, "
      "float sigma, float min_score, int cap, int method) -> (Tensor, Tensor, Tensor)");
  m.def(
      "nms_1d_greedy(Tensor segs, Tensor scores, Tensor group_offsets, Tensor video_groups, float iou_threshold, "
      "float sigma, float min_score, int cap, int method) -> (Tensor, Tensor, Tensor)");
  m.def(
      "segment_voting(Tensor kept, Tensor kept_offsets, Tensor segs, Tensor scores, Tensor video_offsets, "
      "float iou_threshold) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(actionformer_nt, CPU, m) {
  m.impl("nms_1d", TORCH_BOX(&nms::nms_cpu<true>));
  m.impl("nms_1d_greedy", TORCH_BOX(&nms::nms_cpu<false>));
  m.impl("segment_voting", TORCH_BOX(&nms::vote_cpu));
}
