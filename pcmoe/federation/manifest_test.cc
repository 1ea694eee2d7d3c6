// pcmoe/federation/manifest_test.cc: a manifest survives its file, and nothing wrong gets in.
#include "pcmoe/federation/manifest.h"

#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/federation/signature.h"

namespace pcmoe::federation {
namespace {

using nlohmann::json;
using testing::HasSubstr;

Manifest Example() {
  Manifest manifest;
  manifest.id = "fed-1";
  manifest.name = "Four hospitals";
  manifest.parties = {{"a", "127.0.0.1", 7001}, {"b-2", "b.example.org", 7001}};
  manifest.model_config_sha256 = base::DigestOf("config");
  manifest.init_seed = 0xFFFFFFFFFFFFFFFF;
  manifest.schedule_seed = 3;
  manifest.max_steps = 200;
  manifest.training = {{"learning_rate", "0.0003"}, {"seq_length", "256"}};
  return manifest;
}

TEST(ManifestTest, SurvivesItsJson) {
  Manifest manifest = Example();
  EXPECT_EQ(*ParseManifest(manifest.CanonicalJson()), manifest);
  manifest.owners = {{0, 1, 1}, {1, 1, 1}};
  manifest.checkpoint_sha256 = base::DigestOf("weights");
  manifest.exchange = Exchange::kRows;
  manifest.schedule = Schedule::kRoundRobin;
  const auto read = ParseManifest(manifest.CanonicalJson());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, manifest);
}

TEST(ManifestTest, TheDigestIgnoresLayoutAndSeesContent) {
  const Manifest manifest = Example();
  const std::string compact = json::parse(manifest.CanonicalJson()).dump();
  EXPECT_EQ(ParseManifest(compact)->Digest(), manifest.Digest());
  Manifest other = manifest;
  other.training["learning_rate"] = "0.0004";
  EXPECT_NE(other.Digest(), manifest.Digest());
}

struct Wrong {
  const char* name;
  std::function<void(json&)> change;
  const char* sentence;
};

TEST(ManifestTest, WhateverIsWrongIsNamed) {
  const Wrong cases[] = {
      {"typo", [](json& j) { j["limits"]["max_row"] = 3; }, "did you mean 'max_rows'"},
      {"far typo", [](json& j) { j["zzzzzz"] = 3; }, "manifest.zzzzzz is not a known key"},
      {"missing", [](json& j) { j.erase("seeds"); }, "manifest.seeds is missing"},
      {"format", [](json& j) { j["format"] = 2; }, "manifest.format"},
      {"type", [](json& j) { j["max_steps"] = "9"; }, "manifest.max_steps must be a whole"},
      {"negative", [](json& j) { j["seeds"]["init"] = -1; }, "manifest.seeds.init"},
      {"fraction", [](json& j) { j["seeds"]["init"] = 1.5; }, "manifest.seeds.init"},
      {"port", [](json& j) { j["parties"][0]["port"] = 70000; }, "manifest.parties[0].port"},
      {"name", [](json& j) { j["parties"][0]["name"] = "../a"; }, "lower-case"},
      {"twice", [](json& j) { j["parties"][0]["name"] = "b-2"; }, "two parties are called 'b-2'"},
      {"address", [](json& j) { j["parties"][0]["host"] = "b.example.org"; }, "two parties listen"},
      {"host", [](json& j) { j["parties"][0]["host"] = "a b"; }, "host name"},
      {"nobody", [](json& j) { j["parties"] = json::array(); }, "1 to 256"},
      {"exchange", [](json& j) { j["exchange"] = "x"; }, "must be \"rows\" or \"weights\""},
      {"turns", [](json& j) { j["schedule"] = "round_robin"; }, "needs exchange \"rows\""},
      {"schedule", [](json& j) { j["schedule"] = "x"; }, "\"synchronous\" or \"round_robin\""},
      {"digest", [](json& j) { j["model"]["config_sha256"] = "12"; }, "64 hexadecimal"},
      {"owner", [](json& j) { j["placement"] = {{0, 2}}; }, "there are 2 parties"},
      {"owner type", [](json& j) { j["placement"] = {{0, "a"}}; }, "manifest.placement"},
      {"placement", [](json& j) { j["placement"] = 7; }, "manifest.placement"},
      {"tls", [](json& j) { j["limits"]["min_tls"] = "1.3"; }, "min_tls"},
      {"training", [](json& j) { j["training"]["x"] = 1; }, "manifest.training"},
      {"id", [](json& j) { j["federation"]["id"] = ""; }, "federation.id"},
      {"object", [](json& j) { j = json::array(); }, "manifest must be a JSON object"},
  };
  for (const Wrong& wrong : cases) {
    json document = json::parse(Example().CanonicalJson());
    wrong.change(document);
    const auto result = ParseManifest(document.dump());
    ASSERT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << wrong.name;
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(wrong.sentence)) << wrong.name;
  }
}

TEST(ManifestTest, RepeatedKeysAndDeepNestingAreRefused) {
  std::string text = Example().CanonicalJson();
  text.insert(1, "\"max_steps\": 5,");
  EXPECT_THAT(std::string(ParseManifest(text).status().message()),
              HasSubstr("repeats the key 'max_steps'"));
  EXPECT_FALSE(ParseManifest(std::string(100000, '[')).ok());
  EXPECT_FALSE(ParseManifest("").ok());
  EXPECT_FALSE(ParseManifest("{\"format\": \"\xff\"}").ok());
}

TEST(ManifestTest, DamagedBytesNeverCrash) {
  const std::string text = Example().CanonicalJson();
  std::mt19937 random(5);
  for (int round = 0; round < 3000; ++round) {
    std::string damaged = text;
    for (uint32_t edits = 1 + random() % 4; edits > 0; --edits) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    const auto result = ParseManifest(damaged.substr(0, random() % 8 == 0 ? random() % 400 : 9999));
    if (!result.ok()) continue;
    EXPECT_TRUE(ParseManifest(result->CanonicalJson()).ok());
  }
}

TEST(ManifestTest, KnowsItsParties) {
  const Manifest manifest = Example();
  EXPECT_EQ(*manifest.IndexOf("b-2"), 1U);
  EXPECT_EQ(manifest.IdentityOf(1), "b-2.fed-1.pcmoe");
  EXPECT_THAT(std::string(manifest.IndexOf("c").status().message()), HasSubstr("a, b-2"));
}

TEST(SignatureTest, OnlyTheSignedManifestByTheRightKeyPasses) {
  const SigningKey key = GenerateSigningKey();
  const SigningKey other = GenerateSigningKey();
  const Manifest manifest = Example();
  const std::string signature = SignManifest(manifest, key);

  EXPECT_TRUE(VerifySignature(manifest, signature + "\n", PublicToHex(key)).ok());
  EXPECT_FALSE(VerifySignature(manifest, signature, PublicToHex(other)).ok());
  EXPECT_FALSE(VerifySignature(manifest, signature.substr(1), PublicToHex(key)).ok());
  EXPECT_FALSE(VerifySignature(manifest, "", PublicToHex(key)).ok());
  EXPECT_FALSE(VerifySignature(manifest, signature, "no key").ok());
  Manifest changed = manifest;
  changed.max_steps += 1;
  EXPECT_EQ(VerifySignature(changed, signature, PublicToHex(key)).code(),
            absl::StatusCode::kUnauthenticated);
}

TEST(SignatureTest, KeysSurviveTheirHex) {
  const SigningKey key = GenerateSigningKey();
  const auto read = SigningKeyFromHex(SecretToHex(key));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->public_key, key.public_key);
  EXPECT_FALSE(SigningKeyFromHex("12").ok());
}

}  // namespace
}  // namespace pcmoe::federation
