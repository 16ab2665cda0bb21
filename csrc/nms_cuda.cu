// CUDA kernels: one block per group of candidates (a class of a video), then a merge of each video's groups; for
// voting, one block per segment. There are no atomics, so equal inputs give equal bits.
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "nms_ops.h"

// Declared here, since the header hides this function if torch was built without CUDA.
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** ret_stream);

namespace nms {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr unsigned kAllLanes = 0xffffffffu;

void check(cudaError_t error) { STD_TORCH_CHECK(error == cudaSuccess, "CUDA error: ", cudaGetErrorString(error)); }

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream) == AOTI_TORCH_SUCCESS,
                  "no current CUDA stream");
  return static_cast<cudaStream_t>(stream);
}

// A team of all threads of a block.
template <typename T>
class BlockTeam {
 public:
  struct Memory {
    Best<T> of_warp[kWarps];
    Best<T> of_block;
  };
  __device__ explicit BlockTeam(Memory& memory) : memory_(memory) {}
  __device__ int64_t rank() const { return threadIdx.x; }
  __device__ int64_t size() const { return kThreads; }
  __device__ Best<T> best(Best<T> mine) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    mine = best_of_warp(mine);
    if (lane == 0) memory_.of_warp[warp] = mine;
    __syncthreads();
    if (warp == 0) {
      const Best<T> other = best_of_warp(memory_.of_warp[lane < kWarps ? lane : 0]);
      if (lane == 0) memory_.of_block = other;
    }
    __syncthreads();
    return memory_.of_block;
  }

 private:
  __device__ static Best<T> best_of_warp(Best<T> mine) {
    for (int step = 16; step > 0; step /= 2) {
      const Best<T> other{__shfl_xor_sync(kAllLanes, mine.score, step), __shfl_xor_sync(kAllLanes, mine.index, step)};
      if (other.before(mine)) mine = other;
    }
    return mine;
  }
  Memory& memory_;
};

// Output of pick_kernel: the picks of each group, from the group's first slot on.
template <typename T>
struct Picks {
  T* live;         // (N)
  int64_t* index;  // (N)
  T* score;        // (N)
  int64_t* count;  // (G)
};

template <typename T>
__global__ void pick_kernel(Inputs<T> in, Picks<T> picks) {
  __shared__ typename BlockTeam<T>::Memory memory;
  BlockTeam<T> team(memory);
  const int64_t group = blockIdx.x, start = in.group_offsets[group];
  const int64_t count = greedy_group(team, in.rule, in.segs + start, in.scores + start,
                                     in.group_offsets[group + 1] - start, in.cap, picks.live + start,
                                     picks.index + start, picks.score + start);
  if (threadIdx.x == 0) picks.count[group] = count;
}

template <typename T>
__global__ void clear_kernel(Inputs<T> in, Outputs<T> out) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < in.num_candidates) out.clear(i, i + 1);
}

// Index of the range that contains `position`, by binary search.
__device__ int64_t range_of(const int64_t* offsets, int64_t num_ranges, int64_t position) {
  int64_t low = 0, high = num_ranges - 1;
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (offsets[middle] <= position) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

template <typename T>
__global__ void merge_kernel(Inputs<T> in, Picks<T> picks, Outputs<T> out) {
  const int64_t group = blockIdx.x;
  const int64_t video = range_of(in.video_groups, in.num_videos, group);
  const int64_t first = in.video_groups[video], end = in.video_groups[video + 1];
  for (int64_t k = threadIdx.x; k < picks.count[group]; k += kThreads) {
    const int64_t rank = merged_rank(group, k, first, end, in.group_offsets, picks.count, picks.score);
    if (in.cap > 0 && rank >= in.cap) continue;
    const int64_t slot = in.group_offsets[first] + rank, from = in.group_offsets[group] + k;
    out.index[slot] = in.group_offsets[group] + picks.index[from];
    out.score[slot] = picks.score[from];
  }
}

template <typename T>
__global__ void count_kernel(Inputs<T> in, Picks<T> picks, Outputs<T> out) {
  const int64_t video = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (video >= in.num_videos) return;
  int64_t count = 0;
  for (int64_t g = in.video_groups[video]; g < in.video_groups[video + 1]; ++g) count += picks.count[g];
  out.count[video] = in.cap > 0 && count > in.cap ? in.cap : count;
}

unsigned blocks_for(int64_t n) { return static_cast<unsigned>((n + kThreads - 1) / kThreads); }

std::tuple<Tensor, Tensor, Tensor> nms_cuda(Tensor segs, Tensor scores, Tensor group_offsets, Tensor video_groups,
                                            double iou_threshold, double sigma, double min_score, int64_t cap,
                                            int64_t method) {
  const torch::stable::accelerator::DeviceGuard guard(segs.get_device_index());
  const cudaStream_t stream = current_stream(segs);
  Tensor live = torch::stable::new_empty(scores, {scores.size(0)});
  Tensor index = torch::stable::new_empty(group_offsets, {scores.size(0)});
  Tensor score = torch::stable::new_empty(scores, {scores.size(0)});
  Tensor count = torch::stable::new_empty(group_offsets, {group_offsets.size(0) - 1});
  return dispatch_nms(
      segs, scores, group_offsets, video_groups, iou_threshold, sigma, min_score, cap, method,
      [&](const auto& in, const auto& out) {
        using T = std::decay_t<decltype(in.rule.sigma)>;
        const Picks<T> picks{static_cast<T*>(live.mutable_data_ptr()), static_cast<int64_t*>(index.mutable_data_ptr()),
                             static_cast<T*>(score.mutable_data_ptr()),
                             static_cast<int64_t*>(count.mutable_data_ptr())};
        const auto groups = static_cast<unsigned>(in.num_groups);
        if (in.num_candidates > 0) clear_kernel<T><<<blocks_for(in.num_candidates), kThreads, 0, stream>>>(in, out);
        if (groups > 0) {
          pick_kernel<T><<<groups, kThreads, 0, stream>>>(in, picks);
          merge_kernel<T><<<groups, kThreads, 0, stream>>>(in, picks, out);
        }
        if (in.num_videos > 0) count_kernel<T><<<blocks_for(in.num_videos), kThreads, 0, stream>>>(in, picks, out);
        check(cudaGetLastError());
      });
}

// One block per kept segment; partial sums of the threads are added in a fixed order.
template <typename T>
__global__ void vote_kernel(VoteInputs<T> in, Segment<T>* out, T iou_threshold) {
  __shared__ double total[kThreads], start[kThreads], end[kThreads];  // float64, since the sums have many terms
  const int64_t k = blockIdx.x;
  const int me = threadIdx.x;
  const int64_t video = range_of(in.kept_offsets, in.num_videos, k);
  total[me] = start[me] = end[me] = 0.0;
  for (int64_t i = in.video_offsets[video] + me; i < in.video_offsets[video + 1]; i += kThreads) {
    const double weight = vote_weight(in.kept[k], in.segs[i], in.scores[i], iou_threshold);
    total[me] += weight;
    start[me] += weight * in.segs[i].start;
    end[me] += weight * in.segs[i].end;
  }
  for (int step = kThreads / 2; step > 0; step /= 2) {
    __syncthreads();
    if (me < step) {
      total[me] += total[me + step];
      start[me] += start[me + step];
      end[me] += end[me + step];
    }
  }
  if (me == 0) out[k] = voted(in.kept[k], total[0], start[0], end[0]);
}

Tensor vote_cuda(Tensor kept, Tensor kept_offsets, Tensor segs, Tensor scores, Tensor video_offsets,
                 double iou_threshold) {
  const torch::stable::accelerator::DeviceGuard guard(segs.get_device_index());
  const cudaStream_t stream = current_stream(segs);
  return dispatch_vote(kept, kept_offsets, segs, scores, video_offsets, [&](const auto& in, auto* out) {
    using T = typename std::decay_t<decltype(*out)>::Scalar;
    if (in.num_kept == 0) return;
    vote_kernel<T><<<static_cast<unsigned>(in.num_kept), kThreads, 0, stream>>>(in, out, static_cast<T>(iou_threshold));
    check(cudaGetLastError());
  });
}

}  // namespace
}  // namespace nms

STABLE_TORCH_LIBRARY_IMPL(actionformer_nt, CUDA, m) {
  m.impl("nms_1d", TORCH_BOX(&nms::nms_cuda));
  m.impl("segment_voting", TORCH_BOX(&nms::vote_cuda));
}
