// pcmoe/exchange/weights/stage_units_test.cc: the layout of unit_weights: what is encoded is seen
// again, bit for bit; any bytes of another length or version are refused, and any of the right
// length stay in their bounds.
#include "pcmoe/exchange/weights/stage_units.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "pcmoe/model/stages.h"

namespace pcmoe::exchange {
namespace {

constexpr int kParties = 3;
constexpr uint64_t kVersion = 41;

model::ModelConfig Config() {
  return *model::ParseConfig(
      R"({"model_type":"qwen2_moe","vocab_size":40,"hidden_size":16,"num_hidden_layers":2,
          "num_attention_heads":4,"num_key_value_heads":2,"num_experts_per_tok":2,"num_experts":5,
          "hidden_act":"silu","max_position_embeddings":32,"tie_word_embeddings":false,
          "intermediate_size":24,"moe_intermediate_size":12,"shared_expert_intermediate_size":20,
          "decoder_sparse_step":1,"mlp_only_layers":[1],"norm_topk_prob":true,
          "rms_norm_eps":1e-5})",
      "test");
}

struct Format {
  at::ScalarType dtype;
  bool int8;
};

class Layout : public testing::TestWithParam<Format> {
 protected:
  Layout()
      : config_(Config()),
        map_(config_, *federation::Placement::Create({}, 1, 5, kParties)),
        units_(
            config_, map_,
            BackboneOwners(config_, map_,
                           {PartMode::kAggregated, PartMode::kAggregated, PartMode::kAggregated}),
            GetParam().dtype, GetParam().int8) {}

  // Random numbers in every tensor of an owner.
  StageTensors Filled(int stage, int owner) {
    StageTensors tensors = units_.Frame(stage);
    for (const UnitTensor& unit : units_.Of(stage, owner).tensors) {
      at::Tensor values = at::empty(unit.shape, at::TensorOptions(at::kFloat));
      for (int64_t i = 0; i < unit.elements; ++i) {
        values.mutable_data_ptr<float>()[i] = static_cast<float>(random_() % 2001) / 1000 - 1;
      }
      units_.TensorOf(tensors, stage, unit) = values.to(unit.dtype);
    }
    return tensors;
  }

  const model::ModelConfig config_;
  const ExpertMap map_;
  const StageUnits units_;
  std::mt19937 random_{5};
};

TEST_P(Layout, WhatIsEncodedIsSeenAgain) {
  for (int stage = 0; stage < units_.stages(); ++stage) {
    for (int owner = 0; owner < kParties; ++owner) {
      if (units_.Of(stage, owner).empty()) continue;
      StageTensors own = Filled(stage, owner);
      const wire::Buffer payload = units_.EncodeWeights(stage, owner, kVersion, own);
      StageTensors seen = units_.Frame(stage);
      ASSERT_TRUE(units_.ViewWeights(stage, owner, kVersion, payload, seen));
      for (const UnitTensor& unit : units_.Of(stage, owner).tensors) {
        const at::Tensor& a = units_.TensorOf(own, stage, unit);
        const at::Tensor& b = units_.TensorOf(seen, stage, unit);
        ASSERT_EQ(a.sizes(), b.sizes());
        ASSERT_EQ(a.scalar_type(), b.scalar_type());
        if (GetParam().int8 && unit.shape.size() == 2) continue;  // rounded
        EXPECT_EQ(std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()), 0);
      }
    }
  }
}

TEST_P(Layout, AnyBytesAreRefusedOrStayInTheirBounds) {
  int taken = 0;
  for (int round = 0; round < 3000; ++round) {
    const int stage = static_cast<int>(random_() % static_cast<uint32_t>(units_.stages()));
    const int owner = static_cast<int>(random_() % kParties);
    const size_t right = units_.WeightBytes(stage, owner);
    const size_t off = round % 4 == 0 ? random_() % 200 : 0;
    const size_t size = round % 8 == 0 && off < right ? right - off : right + off;
    wire::Buffer payload = wire::Buffer::Allocate(size);
    for (uint8_t& byte : payload.writable()) byte = static_cast<uint8_t>(random_());
    const bool versioned = size >= sizeof(kVersion) && round % 3 != 0;
    if (versioned) std::memcpy(payload.writable().data(), &kVersion, sizeof(kVersion));
    StageTensors seen = units_.Frame(stage);
    const bool ok = units_.ViewWeights(stage, owner, kVersion, payload, seen);
    EXPECT_EQ(ok, versioned && size == right);
    if (!ok) continue;
    ++taken;
    const auto* begin = payload.bytes().data();
    for (const UnitTensor& unit : units_.Of(stage, owner).tensors) {
      const at::Tensor& tensor = units_.TensorOf(seen, stage, unit);
      ASSERT_EQ(tensor.sizes(), at::IntArrayRef(unit.shape));
      if (GetParam().int8 && unit.shape.size() == 2) continue;  // a tensor of its own
      const auto* data = static_cast<const uint8_t*>(tensor.const_data_ptr());
      EXPECT_GE(data, begin + 64);
      EXPECT_LE(data + tensor.nbytes(), begin + size);
      EXPECT_EQ((data - begin) % 64, 0);
    }
  }
  EXPECT_GT(taken, 1000);
}

INSTANTIATE_TEST_SUITE_P(Formats, Layout,
                         testing::Values(Format{at::kFloat, false}, Format{at::kBFloat16, false},
                                         Format{at::kFloat, true}, Format{at::kBFloat16, true}));

}  // namespace
}  // namespace pcmoe::exchange
