// pcmoe/tensor/safetensors_header_test.cc: a damaged or hostile header is an error, never more.
#include "pcmoe/tensor/safetensors_header.h"

#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pcmoe::tensor {
namespace {

// A file with this header, padded to `data_bytes` of data.
std::string FileOf(std::string_view json, size_t data_bytes) {
  std::string file(8, '\0');
  for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(json.size() >> (8 * i) & 0xff);
  return file + std::string(json) + std::string(data_bytes, 'x');
}

absl::StatusOr<SafetensorsHeader> Parse(std::string_view file) {
  return ParseSafetensorsHeader({reinterpret_cast<const uint8_t*>(file.data()), file.size()});
}

TEST(SafetensorsHeaderTest, ReadsTensorsScalarsAndMetadata) {
  const std::string json =
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},)"
      R"("a":{"shape":[],"dtype":"F32","data_offsets":[0,4]},)"
      R"("none":{"dtype":"F32","shape":[0,7],"data_offsets":[16,16]}}   )";
  const auto header = Parse(FileOf(json, 16));

  ASSERT_TRUE(header.ok()) << header.status();
  const uint64_t start = 8 + json.size();
  EXPECT_EQ(header->metadata.at("format"), "pt");
  EXPECT_EQ(header->tensors.at("a").begin, start);
  EXPECT_EQ(header->tensors.at("b").end, start + 16);
  EXPECT_THAT(header->tensors.at("b").shape, testing::ElementsAre(2, 3));
  EXPECT_EQ(header->tensors.at("b").dtype, "BF16");
  EXPECT_THAT(header->tensors.at("none").shape, testing::ElementsAre(0, 7));
}

TEST(SafetensorsHeaderTest, EncodedHeaderReadsBackAndIsAligned) {
  const std::string name = "a \"quoted\" name\n";
  const std::string bytes = EncodeSafetensorsHeader(
      {{name, {"F32", {3}, 0, 12}}, {"n", {"U8", {2, 2}, 12, 16}}}, {{"format", "pt"}});
  EXPECT_EQ(bytes.size() % 8, 0U);

  const auto header = Parse(bytes + std::string(16, 'x'));

  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->tensors.at(name).begin, bytes.size());
  EXPECT_EQ(header->tensors.at("n").end, bytes.size() + 16);
}

struct BadCase {
  const char* what;
  std::string json;
  size_t data_bytes;
  const char* message;
};

TEST(SafetensorsHeaderTest, RefusesEveryRuleBroken) {
  const auto one = [](const std::string& body) { return "{\"t\":{" + body + "}}"; };
  const std::string good = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
  const std::vector<BadCase> cases{
      {"empty", "", 0, "begin with"},
      {"array", "[]", 0, "begin with"},
      {"leading space", " {}", 0, "begin with"},
      {"cut JSON", R"({"t":)", 0, "not valid JSON"},
      {"text after", "{} {}", 0, "not valid JSON"},
      {"invalid UTF-8", "{\"\xff\":{}}", 0, "not valid JSON"},
      {"value not object", R"({"t":3})", 0, "not an object of objects"},
      {"nested", one(R"("dtype":{"a":1})"), 0, "too deeply"},
      {"nested array", one(R"("shape":[[1]])"), 0, "wrong kind"},
      {"negative", one(R"("shape":[-1])"), 0, "wrong kind"},
      {"fraction", one(R"("shape":[1.5])"), 0, "wrong kind"},
      {"huge", one(R"("shape":[18446744073709551615])"), 0, "too large"},
      {"dtype number", one(R"("dtype":1)"), 0, "wrong kind"},
      {"unknown key", one(good + R"(,"more":1)"), 8, "unknown key"},
      {"key twice", one(good + R"(,"shape":[2])"), 8, "key twice"},
      {"offsets three", one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,9])"), 8, "more than"},
      {"offsets one", one(R"("dtype":"F32","shape":[2],"data_offsets":[0])"), 8, "lacks"},
      {"no dtype", one(R"("shape":[2],"data_offsets":[0,8])"), 8, "lacks"},
      {"unknown dtype", one(R"("dtype":"F4","shape":[2],"data_offsets":[0,8])"), 8,
       "unknown dtype"},
      {"wrong bytes", one(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"), 8,
       "shape and dtype"},
      {"reversed", one(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), 8, "overlap"},
      {"outside", one(good), 7, "overlap"},
      {"data left over", one(good), 9, "covers"},
      {"overflow", one(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])"), 0,
       "too large"},
      {"name twice", "{\"t\":{" + good + "},\"t\":{" + good + "}}", 8, "twice"},
      {"overlap", "{\"t\":{" + good + "},\"u\":{" + good + "}}", 8, "overlap"},
      {"hole", "{\"t\":{" + good + R"(},"u":{"dtype":"U8","shape":[1],"data_offsets":[9,10]}})", 10,
       "hole"},
      {"metadata number", R"({"__metadata__":{"a":1}})", 0, "wrong kind"},
      {"metadata twice", R"({"__metadata__":{},"__metadata__":{}})", 0, "twice"},
      {"metadata list", R"({"__metadata__":[]})", 0, "not an object of objects"},
  };
  for (const BadCase& bad : cases) {
    const auto header = Parse(FileOf(bad.json, bad.data_bytes));
    EXPECT_EQ(header.status().code(), absl::StatusCode::kInvalidArgument) << bad.what;
    EXPECT_THAT(std::string(header.status().message()), testing::HasSubstr(bad.message))
        << bad.what;
  }
}

TEST(SafetensorsHeaderTest, RefusesLengthsThatTheFileDoesNotHave) {
  EXPECT_FALSE(Parse("").ok());
  EXPECT_FALSE(Parse("1234567").ok());
  EXPECT_FALSE(Parse(std::string(8, '\xff')).ok());
  std::string file = FileOf("{}", 0);
  EXPECT_TRUE(Parse(file).ok());
  ++file[0];
  EXPECT_FALSE(Parse(file).ok());
}

// Random damage: any answer will do, as long as what is accepted lies inside the file.
TEST(SafetensorsHeaderTest, DamageNeverPointsOutsideTheFile) {
  const std::string good =
      EncodeSafetensorsHeader({{"a", {"F32", {3, 2}, 0, 24}}, {"b", {"BF16", {4}, 24, 32}}},
                              {{"format", "pt"}}) +
      std::string(32, 'x');
  std::mt19937_64 random(7);
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string file = good;
    for (uint64_t i = 0; i <= random() % 3; ++i) {
      file[random() % (good.size() - 32)] = static_cast<char>(random());
    }
    if (random() % 4 == 0) file.resize(random() % file.size());
    const auto header = Parse(file);
    if (!header.ok()) continue;
    ++accepted;
    for (const auto& [name, entry] : header->tensors) {
      ASSERT_LE(entry.begin, entry.end);
      ASSERT_LE(entry.end, file.size());
    }
  }
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace pcmoe::tensor
