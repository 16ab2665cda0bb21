// Greedy non-maximum suppression of 1-D segments, hard and soft, and segment voting. The same source compiles for the
// host and for CUDA.
//
// Candidates come in groups (a class of a video), each a contiguous range. In every group, repeat: pick the candidate
// with the highest score (of equal scores the lowest index), decay the scores of the others by their overlap with the
// pick, drop candidates whose scores fall below `min_score`. Two implementations:
//
//   greedy_group   runs these steps with a team of threads; used by the CUDA kernel.
//   LazyGroup      yields one pick at a time, on the host. Scores only fall, so an outdated score is an upper bound:
//                  the pending decays of a candidate are applied only when it reaches the top of a heap. Decays are
//                  applied in the same order as in greedy_group, so the results are equal bit for bit.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#ifndef __CUDACC__
#include <algorithm>
#include <vector>
#endif

#ifdef __CUDACC__
#define NMS_FUNCTION __host__ __device__ inline
#else
#define NMS_FUNCTION inline
#endif

namespace nms {

enum class Method : int64_t { kHard = 0, kLinear = 1, kGaussian = 2 };

// Parameters of a run, in the precision of the computation.
template <typename T>
struct Rule {
  Method method;
  T iou_threshold;  // hard and linear: lowest IoU that has an effect
  T sigma;          // Gaussian: exp(-iou^2 / sigma)
  T min_score;      // soft: decayed scores below are dropped (never the first pick); hard: needs a higher score
};

template <typename T>
struct Segment {
  using Scalar = T;
  T start, end;
};

constexpr double kLengthEpsilon = 1e-6;  // added to every length, as in ActionFormer
template <typename T>
constexpr T kDropped = -std::numeric_limits<T>::infinity();  // score of a dropped candidate
constexpr int64_t kNoIndex = std::numeric_limits<int64_t>::max();

template <typename T>
NMS_FUNCTION T overlap(Segment<T> a, Segment<T> b) {
  const T start = a.start > b.start ? a.start : b.start;
  const T end = a.end < b.end ? a.end : b.end;
  return end > start ? end - start : T(0);
}

// Intersection over union; `inter` is their overlap.
template <typename T>
NMS_FUNCTION T iou_of(Segment<T> a, Segment<T> b, T inter) {
  const T epsilon = T(kLengthEpsilon);
  const T length_a = (a.end - a.start) + epsilon, length_b = (b.end - b.start) + epsilon;
  return inter / (length_a + length_b - inter);
}

// Score of `other` after `pick` was taken; -infinity: dropped.
template <typename T>
NMS_FUNCTION T decayed(Rule<T> rule, Segment<T> pick, Segment<T> other, T score) {
  const T inter = overlap(pick, other);
  if (inter > T(0) || rule.iou_threshold <= T(0)) {
    const T iou = iou_of(pick, other, inter);
    if (rule.method == Method::kGaussian) {
      score *= std::exp(-(iou * iou) / rule.sigma);
    } else if (iou >= rule.iou_threshold) {
      if (rule.method == Method::kHard) return kDropped<T>;
      score *= T(1) - iou;
    }
  }
  return rule.method != Method::kHard && score < rule.min_score ? kDropped<T> : score;
}

// Initial score of a candidate; -infinity: dropped.
template <typename T>
NMS_FUNCTION T initial(Rule<T> rule, T score) {
  const bool out = rule.method == Method::kHard && rule.min_score > T(0) && !(score > rule.min_score);
  return out ? kDropped<T> : score;
}

template <typename T>
struct Best {
  T score;
  int64_t index;

  // Whether this candidate is picked before `other`.
  NMS_FUNCTION bool before(Best other) const {
    return score > other.score || (score == other.score && index < other.index);
  }
};

// NMS of one group by all threads of `team`. A team has `rank()`, `size()` and `best(mine)`, a barrier that returns the
// best of all threads' candidates to every thread.
//
// segs, scores: the group's n candidates; live: scratch for n scores. Writes picked indices (within the group) and
// their scores, at most `cap` (<= 0: all), and returns their number.
template <typename T, typename Team>
NMS_FUNCTION int64_t greedy_group(Team& team, Rule<T> rule, const Segment<T>* segs, const T* scores, int64_t n,
                                  int64_t cap, T* live, int64_t* picked, T* picked_score) {
  const Best<T> nothing{kDropped<T>, kNoIndex};
  Best<T> mine = nothing;
  for (int64_t i = team.rank(); i < n; i += team.size()) {
    live[i] = initial(rule, scores[i]);
    const Best<T> candidate{live[i], i};
    if (live[i] > kDropped<T> && candidate.before(mine)) mine = candidate;
  }
  int64_t count = 0;
  while (cap <= 0 || count < cap) {
    const Best<T> pick = team.best(mine);
    if (!(pick.score > kDropped<T>)) break;
    if (team.rank() == 0) {
      picked[count] = pick.index;
      picked_score[count] = pick.score;
    }
    ++count;
    mine = nothing;
    for (int64_t i = team.rank(); i < n; i += team.size()) {  // each thread touches only its own candidates
      if (!(live[i] > kDropped<T>)) continue;
      live[i] = i == pick.index ? kDropped<T> : decayed(rule, segs[pick.index], segs[i], live[i]);
      const Best<T> candidate{live[i], i};
      if (live[i] > kDropped<T> && candidate.before(mine)) mine = candidate;
    }
  }
  return count;
}

// A team of one thread.
template <typename T>
struct SerialTeam {
  int64_t rank() const { return 0; }
  int64_t size() const { return 1; }
  Best<T> best(Best<T> mine) const { return mine; }
};

// Rank of pick `k` of `group` among the picks of all groups of its video, sorted by falling score, then by group, then by
// order of picking. Within a group, `score` must not rise.
//
// group_start: first slot of each group in `score`; group_count: number of picks of each group.
template <typename T>
NMS_FUNCTION int64_t merged_rank(int64_t group, int64_t k, int64_t first_group, int64_t end_group,
                                 const int64_t* group_start, const int64_t* group_count, const T* score) {
  const T own = score[group_start[group] + k];
  int64_t rank = k;
  for (int64_t g = first_group; g < end_group; ++g) {
    if (g == group) continue;
    int64_t low = 0, high = group_count[g];  // binary search for the number of picks of g before this pick
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      const T other = score[group_start[g] + middle];
      if (other > own || (other == own && g < group)) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    rank += low;
  }
  return rank;
}

// Weight of a candidate in segment voting. Voting replaces `kept` by the mean of the candidates whose IoU with `kept`
// (without the epsilon, as in ActionFormer) is at least the threshold, weighted by score times IoU.
template <typename T>
NMS_FUNCTION T vote_weight(Segment<T> kept, Segment<T> other, T score, T iou_threshold) {
  const T inter = overlap(kept, other);
  const T joint = (kept.end - kept.start) + (other.end - other.start) - inter;
  const T iou = joint > T(0) ? inter / joint : T(0);
  return iou >= iou_threshold ? score * iou : T(0);
}

// The weighted mean from its sums; `kept` if the total weight is 0, as for a segment of zero length.
template <typename T>
NMS_FUNCTION Segment<T> voted(Segment<T> kept, double total, double start, double end) {
  return total > 0.0 ? Segment<T>{static_cast<T>(start / total), static_cast<T>(end / total)} : kept;
}

#ifndef __CUDACC__

// Yields the picks of one group, one at a time.
template <typename T>
class LazyGroup {
 public:
  LazyGroup(Rule<T> rule, const Segment<T>* segs, const T* scores, int64_t n) : rule_(rule), segs_(segs) {
    heap_.reserve(n);
    for (int64_t i = 0; i < n; ++i) {
      const T score = initial(rule, scores[i]);
      if (score > kDropped<T>) heap_.push_back({{score, i}, 0});
    }
    for (size_t i = heap_.size() / 2; i-- > 0;) sift_down(i);
  }

  // Moves the next pick to the top of the heap; false if there is none.
  bool ready() {
    while (!heap_.empty()) {
      Entry& top = heap_.front();
      if (!picks_.empty() && rule_.method != Method::kHard && top.best.score < rule_.min_score) {
        heap_.clear();  // all other scores are lower
        break;
      }
      const T bound = second_score();
      while (top.applied < picks_.size() && top.best.score >= bound) {
        top.best.score = decayed(rule_, picks_[top.applied++], segs_[top.best.index], top.best.score);
      }
      if (!(top.best.score > kDropped<T>)) {
        remove_top();
      } else if (top.applied == picks_.size() && top.best.score > bound) {
        return true;
      } else {
        const int64_t index = top.best.index;
        const bool settled = top.applied == picks_.size();
        sift_down(0);
        if (settled && heap_.front().best.index == index) return true;
      }
    }
    return false;
  }

  Best<T> top() const { return heap_.front().best; }

  void take_top() {
    picks_.push_back(segs_[heap_.front().best.index]);
    remove_top();
  }

 private:
  struct Entry {
    Best<T> best;    // upper bound of the score, and the index within the group
    size_t applied;  // number of picks whose decay the score includes
  };

  T second_score() const {
    T bound = kDropped<T>;
    for (size_t i = 1; i < std::min<size_t>(3, heap_.size()); ++i) bound = std::max(bound, heap_[i].best.score);
    return bound;
  }

  void remove_top() {
    heap_.front() = heap_.back();
    heap_.pop_back();
    if (!heap_.empty()) sift_down(0);
  }

  void sift_down(size_t at) {
    const Entry moved = heap_[at];
    for (size_t child; (child = 2 * at + 1) < heap_.size(); at = child) {
      if (child + 1 < heap_.size() && heap_[child + 1].best.before(heap_[child].best)) ++child;
      if (!heap_[child].best.before(moved.best)) break;
      heap_[at] = heap_[child];
    }
    heap_[at] = moved;
  }

  Rule<T> rule_;
  const Segment<T>* segs_;
  std::vector<Entry> heap_;
  std::vector<Segment<T>> picks_;
};

// A grid over the starts of candidates, which limits voting to near candidates: an IoU of t with a segment of length L
// needs a start less than (1 / t - 1) L before and less than (1 - t) L after the segment's start.
template <typename T>
class StartGrid {
 public:
  StartGrid(const Segment<T>* segs, int64_t n) : segs_(segs), order_(n), cells_(n + 2, 0) {
    T high = n > 0 ? segs[0].start : T(0);
    low_ = high;
    for (int64_t i = 0; i < n; ++i) {
      low_ = std::min(low_, segs[i].start);
      high = std::max(high, segs[i].start);
    }
    per_unit_ = high > low_ ? static_cast<double>(n) / (static_cast<double>(high) - low_) : 0.0;
    for (int64_t i = 0; i < n; ++i) ++cells_[cell(segs[i].start) + 1];
    for (int64_t c = 1; c <= n + 1; ++c) cells_[c] += cells_[c - 1];
    std::vector<int64_t> next(cells_.begin(), cells_.end() - 1);
    for (int64_t i = 0; i < n; ++i) order_[next[cell(segs[i].start)]++] = i;
  }

  // `kept` after voting.
  Segment<T> vote(Segment<T> kept, const T* scores, T iou_threshold) const {
    const double t = std::min(static_cast<double>(iou_threshold), 1.0), length = static_cast<double>(kept.end) - kept.start;
    int64_t first = 0, last = static_cast<int64_t>(order_.size());
    if (t > 0.0) {  // one extra cell on both sides against rounding errors
      first = cells_[std::max<int64_t>(cell(kept.start - length * (1.0 / t - 1.0)) - 1, 0)];
      last = cells_[std::min<int64_t>(cell(kept.start + length * (1.0 - t)) + 2, cells_.size() - 1)];
    }
    double total = 0, start = 0, end = 0;
    for (int64_t k = first; k < last; ++k) {
      const Segment<T> other = segs_[order_[k]];
      const double weight = vote_weight(kept, other, scores[order_[k]], iou_threshold);
      total += weight;
      start += weight * other.start;
      end += weight * other.end;
    }
    return voted(kept, total, start, end);
  }

 private:
  int64_t cell(double start) const {
    const double at = (start - low_) * per_unit_;
    return at <= 0.0 ? 0 : static_cast<int64_t>(std::min(at, static_cast<double>(order_.size())));
  }

  const Segment<T>* segs_;
  T low_;
  double per_unit_;
  std::vector<int64_t> order_;  // candidates, cell by cell
  std::vector<int64_t> cells_;  // where each cell begins in `order_`
};

#endif  // __CUDACC__

}  // namespace nms
