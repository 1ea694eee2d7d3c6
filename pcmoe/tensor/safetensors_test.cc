// pcmoe/tensor/safetensors_test.cc: tensors survive the disk, and Python's safetensors agrees.
#include "pcmoe/tensor/safetensors.h"

#include <ATen/ATen.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/tensor/dtype.h"
#include "pcmoe/tensor/shape.h"

namespace pcmoe::tensor {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class SafetensorsTest : public testing::Test {
 protected:
  SafetensorsTest()
      : folder_(fs::temp_directory_path() / absl::StrCat("pcmoe_tensor_", ::getpid())) {
    fs::create_directories(folder_);
  }
  ~SafetensorsTest() override { fs::remove_all(folder_); }
  const fs::path folder_;
};

std::vector<NamedTensor> Samples() {
  return {{"bytes", at::arange(5, at::kByte)},
          {"half", at::randn({3, 5}).to(at::kBFloat16)},
          {"float", at::randn({4, 6})},
          {"transposed", at::randn({4, 6}).t()},
          {"scalar", at::scalar_tensor(2.5)},
          {"none", at::empty({0, 3})},
          {"whole", at::arange(-3, 4, at::kLong)},
          {"bool", at::ones({3}, at::kBool)},
          {"double", at::randn({2, 2}, at::kDouble)}};
}

TEST_F(SafetensorsTest, WriteReturnsTheBytesOfTheFile) {
  const fs::path path = folder_ / "a.safetensors";
  const auto bytes = WriteSafetensors(path, Samples());
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(*bytes, fs::file_size(path));
}

TEST_F(SafetensorsTest, WrittenTensorsLoadEqual) {
  const fs::path path = folder_ / "a.safetensors";
  const std::vector<NamedTensor> samples = Samples();
  ASSERT_TRUE(WriteSafetensors(path, samples, {{"step", "7"}}).ok());

  const auto reader = SafetensorsReader::Open(path);

  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ(reader->metadata().at("step"), "7");
  EXPECT_EQ(reader->tensors().size(), samples.size());
  for (const NamedTensor& item : samples) {
    const auto loaded = reader->Load(item.name);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(loaded->scalar_type(), item.tensor.scalar_type());
    EXPECT_TRUE(at::equal(*loaded, item.tensor)) << item.name;
  }
}

TEST_F(SafetensorsTest, ReadsIntoAnotherDtypeARowAndAViewWithGaps) {
  const fs::path path = folder_ / "a.safetensors";
  const at::Tensor half = at::randn({3, 300000}).to(at::kBFloat16);
  ASSERT_TRUE(WriteSafetensors(path, std::vector<NamedTensor>{{"x", half}}).ok());
  const auto reader = SafetensorsReader::Open(path);
  ASSERT_TRUE(reader.ok());

  const at::Tensor whole = at::empty({3, 300000});
  EXPECT_TRUE(reader->Read("x", whole).ok());
  EXPECT_TRUE(at::equal(whole, half.to(at::kFloat)));
  const at::Tensor row = at::empty({300000}, at::kDouble);
  EXPECT_TRUE(reader->ReadRow("x", 2, row).ok());
  EXPECT_TRUE(at::equal(row, half[2].to(at::kDouble)));
  const at::Tensor gaps = at::zeros({300000, 3}).t();
  EXPECT_TRUE(reader->Read("x", gaps).ok());
  EXPECT_TRUE(at::equal(gaps, whole));
  EXPECT_FALSE(reader->ReadRow("x", 3, row).ok());
  EXPECT_FALSE(reader->ReadRow("x", -1, row).ok());
}

TEST_F(SafetensorsTest, ReadNamesFileAndTensorThatDoNotFit) {
  const fs::path path = folder_ / "a.safetensors";
  ASSERT_TRUE(WriteSafetensors(path, Samples()).ok());
  const auto reader = SafetensorsReader::Open(path);
  ASSERT_TRUE(reader.ok());

  const absl::Status shape = reader->Read("float", at::empty({6, 4}));
  EXPECT_THAT(std::string(shape.message()), HasSubstr("float has shape [4, 6]; [6, 4] is wanted"));
  EXPECT_THAT(std::string(shape.message()), HasSubstr(path.string()));
  EXPECT_EQ(reader->Read("whole", at::empty({7})).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(reader->Read("absent", at::empty({7})).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(reader->Read("float", at::Tensor()).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(SafetensorsTest, RefusesWhatCannotBeWritten) {
  const fs::path path = folder_ / "a.safetensors";
  const at::Tensor x = at::ones({2});
  EXPECT_FALSE(WriteSafetensors(path, std::vector<NamedTensor>{{"x", x}, {"x", x}}).ok());
  EXPECT_FALSE(WriteSafetensors(path, std::vector<NamedTensor>{{"__metadata__", x}}).ok());
  EXPECT_FALSE(WriteSafetensors(path, std::vector<NamedTensor>{{"x", at::Tensor()}}).ok());
  EXPECT_FALSE(
      WriteSafetensors(path, std::vector<NamedTensor>{{"x", x.to(at::kComplexFloat)}}).ok());
  EXPECT_FALSE(WriteSafetensors(folder_ / "no" / "a", std::vector<NamedTensor>{{"x", x}}).ok());
  EXPECT_FALSE(SafetensorsReader::Open(path).ok());
}

// Python's safetensors reads our file, and writes one that we read, with the same sums.
TEST_F(SafetensorsTest, AgreesWithPythonInBothDirections) {
  const fs::path ours = folder_ / "ours.safetensors";
  const fs::path theirs = folder_ / "theirs.safetensors";
  const fs::path script = folder_ / "rewrite.py";
  ASSERT_TRUE(WriteSafetensors(ours, Samples()).ok());
  std::ofstream(script) << "import sys, safetensors.torch as s\n"
                           "s.save_file(s.load_file(sys.argv[1]), sys.argv[2])\n";
  const std::string command =
      absl::StrCat(PCMOE_PYTHON, " ", script.string(), " ", ours.string(), " ", theirs.string());

  ASSERT_EQ(std::system(command.c_str()), 0);

  const auto reader = SafetensorsReader::Open(theirs);
  ASSERT_TRUE(reader.ok()) << reader.status();
  for (const NamedTensor& item : Samples()) {
    const auto again = SafetensorsReader::Open(ours)->Load(item.name);
    EXPECT_TRUE(at::equal(*reader->Load(item.name), *again)) << item.name;
  }
}

TEST(ShapeTest, SaysWhichShapeIsAndShouldBe) {
  EXPECT_TRUE(RequireShape(at::ones({2, 3}), {2, 3}, "x").ok());
  EXPECT_TRUE(RequireShape(at::ones({2, 3}), {-1, 3}, "x").ok());
  EXPECT_EQ(RequireShape(at::ones({2, 3}), {3, 2}, "x").message(),
            "x has shape [2, 3]; it should be [3, 2]");
  EXPECT_FALSE(RequireShape(at::ones({2, 3}), {2, 3, 1}, "x").ok());
  EXPECT_FALSE(RequireShape(at::Tensor(), {2}, "x").ok());
  EXPECT_TRUE(RequireType(at::ones({2}), at::kFloat, "x").ok());
  EXPECT_FALSE(RequireType(at::ones({2}), at::kLong, "x").ok());
}

TEST(DtypeTest, NamesAndTypesCorrespond) {
  for (const char* name : {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"}) {
    EXPECT_EQ(*DtypeNameOf(*ScalarTypeOf(name)), name);
    EXPECT_EQ(DtypeBytes(name), c10::elementSize(*ScalarTypeOf(name)));
  }
  EXPECT_FALSE(ScalarTypeOf("F8_E4M3").ok());
  EXPECT_FALSE(ScalarTypeOf("").ok());
}

}  // namespace
}  // namespace pcmoe::tensor
