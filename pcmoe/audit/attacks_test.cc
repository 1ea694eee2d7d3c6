// pcmoe/audit/attacks_test.cc: a view that can be decoded is decoded, a random one is not.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <map>

#include "pcmoe/audit/audit.h"
#include "pcmoe/audit/rows_attacks.h"

namespace pcmoe::audit {
namespace {

constexpr int64_t kVocab = 50, kWidth = 24, kLayers = 3, kTokens = 300, kExperts = 4;

// Two vectors a token and layer, and noise; what the attacker's model computes and what is seen
// come from the same tables.
struct World {
  std::vector<at::Tensor> x_vd, q_vd;
  World() {
    at::manual_seed(11);
    const at::Tensor table = at::randn({kVocab, kWidth});
    const at::Tensor gradients = at::randn({kVocab, kWidth});
    for (int64_t l = 0; l < kLayers; ++l) {
      x_vd.push_back(table + 0.5 * at::randn_like(table));
      q_vd.push_back(gradients + 0.3 * at::randn_like(gradients));
    }
  }
  at::Tensor Noisy(const at::Tensor& table_vd, const at::Tensor& token_t) const {
    const at::Tensor rows = table_vd.index_select(0, token_t);
    return rows + 0.2 * at::randn_like(rows);
  }
  Shadow MakeShadow(int64_t tokens) const {
    Shadow shadow;
    shadow.plain.tokens_t = at::randint(kVocab, {tokens}, at::TensorOptions(at::kLong));
    shadow.plain.labels_t = at::randint(kVocab, {tokens}, at::TensorOptions(at::kLong));
    for (size_t l = 0; l < kLayers; ++l) {
      shadow.plain.x_td.push_back(Noisy(x_vd[l], shadow.plain.tokens_t));
      shadow.plain.q_td.push_back(Noisy(q_vd[l], shadow.plain.labels_t));
      at::Tensor gate = at::zeros({tokens, kExperts});
      gate.scatter_(1, (shadow.plain.tokens_t % kExperts).unsqueeze(1), 1.0);
      shadow.plain.gate_te.push_back(gate);
    }
    return shadow;
  }
  // Every token in every layer, in an order of its own; `order_l` says which.
  View MakeView(const at::Tensor& token_t, const at::Tensor& label_t, bool readable,
                std::vector<at::Tensor>& order_l) const {
    View view{.coalition = {0}, .steps = {0}};
    for (size_t l = 0; l < kLayers; ++l) {
      const at::Tensor order = at::randn({kTokens}).argsort();
      order_l.push_back(order);
      const at::Tensor token = token_t.index_select(0, order);
      LayerView layer;
      layer.x_rd = readable ? Noisy(x_vd[l], token) : at::randn({kTokens, kWidth});
      layer.q_rd =
          readable ? Noisy(q_vd[l], label_t.index_select(0, order)) : at::randn({kTokens, kWidth});
      layer.gate_re = at::zeros({kTokens, kExperts});
      layer.gate_re.scatter_(1, (token % kExperts).unsqueeze(1), 1.0);
      for (int64_t r = 0; r < kTokens; ++r) layer.sources.push_back({.home = 1, .place = r});
      view.layers.push_back(std::move(layer));
    }
    return view;
  }
};

double ShareEqual(const at::Tensor& a, const at::Tensor& b) {
  return (a == b).to(at::kDouble).mean().item<double>();
}

class AttacksTest : public testing::Test {
 protected:
  AttacksTest() {
    at::set_num_threads(1);
    token_ = at::randint(kVocab, {kTokens}, at::TensorOptions(at::kLong));
    label_ = at::randint(kVocab, {kTokens}, at::TensorOptions(at::kLong));
  }
  World world_;
  at::Tensor token_, label_;
  std::vector<at::Tensor> order_l_;
};

TEST_F(AttacksTest, AReadableViewIsDecodedLinkedAndLabelled) {
  const Shadow shadow = world_.MakeShadow(4000);
  const View view = world_.MakeView(token_, label_, true, order_l_);
  const std::vector<Cluster> clusters = Linker(shadow.plain).Link(view);
  const DecoderOptions options{.hidden = 128, .epochs = 8, .batch = 128};
  const DecodedRows tokens = DecodeRows(view, clusters, shadow, kVocab, options);
  const DecodedRows labels = LabelsLearned(view, clusters, shadow, kVocab, options);
  const RowGuesses nearest = DecodeByCodebook(view, shadow, kVocab);
  for (size_t l = 0; l < kLayers; ++l) {
    EXPECT_GT(ShareEqual(tokens.rows[l], token_.index_select(0, order_l_[l])), 0.97);
    EXPECT_GT(ShareEqual(labels.rows[l], label_.index_select(0, order_l_[l])), 0.95);
    EXPECT_GT(ShareEqual(nearest[l], token_.index_select(0, order_l_[l])), 0.97);
  }
  // Links join rows of equal tokens and labels (which of several such tokens cannot be told).
  int64_t right = 0;
  for (const Cluster& cluster : clusters) {
    bool same = true;
    for (const auto& [layer, row] : cluster.rows) {
      const auto token_of = [&](const auto& place) {
        const int64_t t =
            order_l_[static_cast<size_t>(place.first)][place.second].template item<int64_t>();
        return token_[t].template item<int64_t>();
      };
      same = same && token_of(std::pair{layer, row}) == token_of(cluster.rows[0]);
    }
    right += same ? 1 : 0;
  }
  EXPECT_GT(static_cast<double>(right), 0.9 * static_cast<double>(clusters.size()));
  EXPECT_LT(clusters.size(), static_cast<size_t>(1.3 * kTokens));
}

TEST_F(AttacksTest, ARandomViewIsNotDecoded) {
  const Shadow shadow = world_.MakeShadow(4000);
  const View view = world_.MakeView(token_, label_, false, order_l_);
  const std::vector<Cluster> clusters = Linker(shadow.plain).Link(view);
  const DecoderOptions options{.hidden = 128, .epochs = 4, .batch = 128};
  const DecodedRows tokens = DecodeRows(view, clusters, shadow, kVocab, options);
  const RowGuesses nearest = DecodeByCodebook(view, shadow, kVocab);
  for (size_t l = 0; l < kLayers; ++l) {  // chance is 0.02; 300 tries
    EXPECT_LT(ShareEqual(tokens.rows[l], token_.index_select(0, order_l_[l])), 0.07);
    EXPECT_LT(ShareEqual(nearest[l], token_.index_select(0, order_l_[l])), 0.07);
  }
}

// Rows of some layers only, as a coalition sees them: layer l of token t when (t + l) is even.
View Partial(const View& view, const std::vector<at::Tensor>& order_l) {
  View partial{.coalition = view.coalition, .steps = view.steps};
  for (size_t l = 0; l < kLayers; ++l) {
    const at::Tensor kept = ((order_l[l] + static_cast<int64_t>(l)) % 2 == 0).nonzero().flatten();
    LayerView layer{.x_rd = view.layers[l].x_rd.index_select(0, kept),
                    .q_rd = view.layers[l].q_rd.index_select(0, kept),
                    .gate_re = view.layers[l].gate_re.index_select(0, kept)};
    layer.sources.resize(static_cast<size_t>(kept.size(0)), {.home = 1});
    partial.layers.push_back(std::move(layer));
  }
  return partial;
}

// The clusters of a perfect linker on a partial view, and the token of each.
std::vector<Cluster> TrueClusters(const std::vector<at::Tensor>& order_l,
                                  std::vector<int64_t>& token_of_cluster) {
  std::map<int64_t, Cluster> by_token;
  for (size_t l = 0; l < kLayers; ++l) {
    int64_t row = 0;
    for (int64_t place = 0; place < kTokens; ++place) {
      const int64_t t = order_l[l][place].item<int64_t>();
      if ((t + static_cast<int64_t>(l)) % 2 != 0) continue;
      by_token[t].rows.emplace_back(static_cast<int64_t>(l), row++);
    }
  }
  std::vector<Cluster> clusters;
  for (auto& [token, cluster] : by_token) {
    token_of_cluster.push_back(token);
    clusters.push_back(std::move(cluster));
  }
  return clusters;
}

TEST_F(AttacksTest, SetsOfPartialRowsAreDecodedAndRandomOnesAreNot) {
  const Shadow shadow = world_.MakeShadow(6000);
  const SequenceDecoderOptions options{
      .width = 64, .blocks = 1, .heads = 2, .set_size = 60, .sets_at_once = 4, .epochs = 8};
  for (const bool readable : {true, false}) {
    order_l_.clear();
    const View view = Partial(world_.MakeView(token_, label_, readable, order_l_), order_l_);
    std::vector<int64_t> token_of_cluster;
    const std::vector<Cluster> clusters = TrueClusters(order_l_, token_of_cluster);
    const at::Tensor guess = DecodeSets(view, clusters, shadow, kVocab, options);
    int64_t right = 0;
    for (size_t c = 0; c < clusters.size(); ++c) {
      right += guess[static_cast<int64_t>(c)].item<int64_t>() ==
                       token_[token_of_cluster[c]].item<int64_t>()
                   ? 1
                   : 0;
    }
    const double share = static_cast<double>(right) / static_cast<double>(clusters.size());
    if (readable) {
      EXPECT_GT(share, 0.9);
    } else {
      EXPECT_LT(share, 0.08);  // chance is 0.02; 300 tries
    }
  }
}

// A token that only its neighbours tell: what an attack on single rows cannot get.
TEST(SequenceDecoderTest, ATokenIsReadFromTheOthersOfItsSet) {
  at::set_num_threads(1);
  at::manual_seed(4);
  constexpr int64_t kGroups = 400, kSize = 8;
  const at::Tensor group_token = at::randint(4, {kGroups}, at::TensorOptions(at::kLong));
  const at::Tensor token = group_token.repeat_interleave(kSize);
  at::Tensor rows = at::zeros({kGroups * kSize, 1, 5});
  rows.select(2, 4).fill_(1);
  std::vector<int64_t> group;
  for (int64_t n = 0; n < kGroups * kSize; ++n) {
    group.push_back(n / kSize);
    if (n % kSize == 0) rows[n][0][token[n].item<int64_t>()] = 1;  // one of each set shows it
  }
  const SequenceDecoder decoder = SequenceDecoder::Train(
      rows, token, group, 4,
      {.width = 32, .blocks = 1, .heads = 2, .set_size = kSize, .epochs = 20, .drop = 0});
  EXPECT_GT(ShareEqual(decoder.Best(rows, group), token), 0.95);
}

TEST_F(AttacksTest, TheControlLearnsNothingAndWouldNoticeALeak) {
  const Shadow shadow = world_.MakeShadow(20000);
  const View view = world_.MakeView(token_, label_, true, order_l_);
  const at::Tensor truth = token_.index_select(0, order_l_[0]);
  EXPECT_LT(ShareEqual(DecodeRowsControl(view, shadow, kVocab, true)[0], truth), 0.08);
  EXPECT_GT(ShareEqual(DecodeRowsControl(view, shadow, kVocab, false)[0], truth), 0.3);
}

TEST_F(AttacksTest, LabelsByTheClosedFormComeFromTheHeadsRows) {
  const at::Tensor head = at::randn({kVocab, kWidth});
  const at::Tensor norm = at::randn({kWidth}).abs();
  View view = world_.MakeView(token_, label_, true, order_l_);
  for (size_t l = 0; l < kLayers; ++l) {
    view.layers[l].q_rd = -(head * norm).index_select(0, label_.index_select(0, order_l_[l]));
  }
  const RowGuesses guesses = LabelsClosedForm(view, head, norm);
  EXPECT_GT(ShareEqual(guesses[0], label_.index_select(0, order_l_[0])), 0.9);
}

TEST_F(AttacksTest, RoutingTellsWhatItDependsOn) {
  const Shadow shadow = world_.MakeShadow(4000);
  const View view = world_.MakeView(token_, label_, true, order_l_);
  const std::vector<Cluster> clusters = Linker(shadow.plain).Link(view);
  const at::Tensor guess = DecodeRouting(view, clusters, shadow, kVocab, false);
  int64_t same_class = 0;
  for (size_t c = 0; c < clusters.size(); ++c) {
    const auto [layer, row] = clusters[c].rows[0];
    const int64_t t = order_l_[static_cast<size_t>(layer)][row].item<int64_t>();
    same_class += guess[static_cast<int64_t>(c)].item<int64_t>() % kExperts ==
                          token_[t].item<int64_t>() % kExperts
                      ? 1
                      : 0;
  }
  EXPECT_GT(static_cast<double>(same_class), 0.95 * static_cast<double>(clusters.size()));
}

TEST(VerdictTest, OfSumsMembershipWordsAndTheFinalModelComeFirst) {
  Report report{.exchange = "weights", .coalition = {"a"}, .victims = {"b"}};
  const auto add = [&report](const char* id, Target target, Estimate estimate, double baseline) {
    report.findings.push_back({.id = id,
                               .title = id,
                               .target = target,
                               .metric = "AUC",
                               .estimate = estimate,
                               .baselines = {{"chance", baseline}}});
  };
  add("sums_tokens", Target::kTokens, {0.02, 0.01, 0.03}, 0.05);
  add("counts_batch", Target::kTraffic, {0.51, 0.45, 0.57}, 0.5);
  add("words_first_layer", Target::kProperty, {0.6, 0.58, 0.62}, 0.7);
  add("words_embedding", Target::kProperty, {0.99, 0.98, 1}, 0.7);
  add("final_membership", Target::kMemory, {0.7, 0.65, 0.75}, 0.5);
  add("final_extraction", Target::kMemory, {0.1, 0.08, 0.12}, 0.1);
  add("membership_alignment", Target::kMembership, {0.8, 0.7, 0.9}, 0.5);
  report.findings.back().more = {{"AUC at 100 tokens (step 0)", 0.8}};
  const std::vector<Verdict> verdicts = VerdictsOf(report);
  ASSERT_EQ(verdicts.size(), 6U);
  EXPECT_NE(verdicts[0].certainty.find("membership_alignment"), std::string::npos);
  EXPECT_NE(verdicts[0].certainty.find("AUC at 100 tokens"), std::string::npos);
  EXPECT_NE(verdicts[1].certainty.find("words_embedding"), std::string::npos);
  EXPECT_EQ(verdicts[1].level, Verdict::Level::kRevealed);
  EXPECT_EQ(verdicts[2].level, Verdict::Level::kPartly);
  EXPECT_EQ(verdicts[2].to_whom, "whoever has the final model");
  EXPECT_EQ(verdicts[3].level, Verdict::Level::kNothingFound);
  EXPECT_NE(verdicts[5].certainty.find("counts_batch"), std::string::npos);
}

TEST(VerdictTest, WordsFollowTheFigures) {
  Report report{.exchange = "rows", .coalition = {"a"}, .victims = {"b"}};
  report.findings.push_back({.id = "x",
                             .title = "decoder",
                             .target = Target::kTokens,
                             .estimate = {0.95, 0.94, 0.96},
                             .baselines = {{"unigram", 0.05}}});
  report.findings.push_back({.id = "y",
                             .title = "labels",
                             .target = Target::kLabels,
                             .estimate = {0.05, 0.04, 0.06},
                             .baselines = {{"unigram", 0.05}}});
  const std::vector<Verdict> verdicts = VerdictsOf(report);
  ASSERT_EQ(verdicts.size(), 2U);
  EXPECT_EQ(verdicts[0].level, Verdict::Level::kRevealed);
  EXPECT_NE(verdicts[0].change.find("weights"), std::string::npos);
  EXPECT_EQ(verdicts[1].level, Verdict::Level::kNothingFound);
  report.verdicts = verdicts;
  report.findings[0].note = "<script>";
  EXPECT_EQ(ToHtml(report).find("<script"), std::string::npos);
  EXPECT_NE(ToText(report).find("revealed"), std::string::npos);
}

}  // namespace
}  // namespace pcmoe::audit
