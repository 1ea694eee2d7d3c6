// pcmoe/plan/weights_plan.h: what the exchange `weights` will need (DESIGN 3.3, 3.4), from the
// layout of units that the exchange itself uses.
#pragma once

#include <cstdint>
#include <vector>

#include "pcmoe/exchange/weights/stage_units.h"
#include "pcmoe/plan/plan.h"

namespace pcmoe::plan {

/// Bytes of one party on the wire, payload alone.
struct Flow {
  double sent = 0;
  double received = 0;
};

/// A federation of `parties` with the experts dealt out in turn and the backbone as `modes` says.
/// Immutable.
class WeightsPlan {
 public:
  /// INVALID_ARGUMENT when the model has more layers or experts than a federation takes.
  static absl::StatusOr<WeightsPlan> Create(const model::ModelConfig& config, const Recipe& recipe,
                                            const exchange::BackboneModes& modes, int64_t parties);

  int parties() const { return units_.parties(); }
  /// What each party has for the whole run: 16 (fp32) or 18 (bf16) bytes a parameter that it
  /// trains, its own units and private parts, less where there is no compute copy; the weights
  /// alone of frozen parts; the rope table.
  double StatesOf(int party) const;
  /// Memory::transient when all is as full as it gets: the weights of one stage (all layers with
  /// keep_fetched); fp32 gradients of two stages, one that waits to be masked and one that is
  /// computed; int32 sums of own units of two stages.
  double TransientOf(int party) const;
  /// Memory::messages, likewise: the next stage's weights, and a stage's shares.
  double MessagesOf(int party) const;
  /// Of the party whose states and transients are most.
  Memory Largest() const;

  /// A training step, whatever its tokens: an owner sends each unit to everybody else at each fetch
  /// (layers twice, or once with keep_fetched; embedding and head once) and gets a share of 4 bytes
  /// an element from each; a home gets all units of others at each fetch and sends one share of
  /// each.
  Flow StepOf(int party) const;
  /// A sweep over the layers in an evaluation: every unit once.
  Flow SweepOf(int party) const;
  /// The most that one party sends, or receives, in a step.
  double BusiestStep() const;
  double BusiestSweep() const;

 private:
  WeightsPlan(const model::ModelConfig& config, const Recipe& recipe,
              const exchange::BackboneModes& modes, const exchange::ExpertMap& map);
  double PartBytes(int stage, double elements, double copied, int party) const;
  double HeldWeights(int stage, int party) const;
  double WireWeights(int stage, int party) const;
  double OwnElements(int stage, int party) const;
  double RemoteElements(int stage, int party) const;
  Flow WeightsOf(int stage, int party) const;
  int Layers() const { return units_.EmbeddingStage(); }

  model::ModelConfig config_;
  Recipe recipe_;
  exchange::BackboneOwners owners_;
  exchange::StageUnits units_;
};

/// Rows that an expert gets in a step from the whole federation, if all get alike: what min_rows
/// counts. Gradients of experts that get fewer are held at home, up to 8 bytes a parameter of all
/// experts.
double RowsOfAnExpert(const model::ModelConfig& config, const Recipe& recipe, int64_t parties);

/// A link that every party has to the others.
struct Link {
  double mbit = 0;        ///< Million bits a second, each direction.
  double round_trip = 0;  ///< Seconds.
  /// Of each of the parties when nothing has to be waited for; 0: computing takes no time.
  double tokens_per_s = 0;
};

/// Seconds of a step of `tokens` a party over `link`, when the busiest party's link is the narrow
/// place. `rows` with one micro-batch: the backbone computes, then experts compute while rows
/// travel, and each layer asks and is answered twice. `weights`: computing hides behind the
/// transfer, or the transfer behind computing, and a step waits kWeightsWaits one-way delays,
/// whatever its layers, as long as a layer takes longer to send than a delay.
double RowsSeconds(const model::ModelConfig& config, const Recipe& recipe, int64_t parties,
                   const Link& link, double tokens);
double WeightsSeconds(const WeightsPlan& plan, const Link& link, double tokens);
inline constexpr int kWeightsWaits = 7;

/// Tokens a party and step from which on `weights` puts fewer bytes on the busiest link than
/// `rows`.
double BreakEvenTokens(const model::ModelConfig& config, const Recipe& recipe, int64_t parties,
                       const WeightsPlan& plan);
/// Likewise, from which on a step takes less time over `link`; infinite when it never does.
double BreakEvenTokens(const model::ModelConfig& config, const Recipe& recipe, int64_t parties,
                       const WeightsPlan& plan, const Link& link);

}  // namespace pcmoe::plan
