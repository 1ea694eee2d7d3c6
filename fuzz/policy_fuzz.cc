// fuzz/policy_fuzz.cc: any text is refused as a policy file, or forbids known kinds to known
// parties, and never lets out what was forbidden before.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "fuzz/check.h"
#include "pcmoe/cli/party_policy.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::vector<std::string> names = {"a", "b", "c"};
  const std::pair<int, pcmoe::wire::MessageKind> before{1, pcmoe::wire::MessageKind::kVote};
  pcmoe::border::Policy policy{.forbidden = {before}};
  const absl::Status added = pcmoe::cli::AddPolicyText(text, names, policy);
  FUZZ_CHECK(!policy.allow_readable_rows);
  FUZZ_CHECK(policy.forbidden.contains(before));
  FUZZ_CHECK(added.ok() || added.code() == absl::StatusCode::kInvalidArgument);
  FUZZ_CHECK(added.ok() || !added.message().empty());
  for (const auto& [party, kind] : policy.forbidden) {
    FUZZ_CHECK(party >= 0 && party < 3 && NameOf(kind) != "unknown");
  }
  if (!added.ok()) return 0;
  pcmoe::border::Policy again = policy;
  FUZZ_CHECK(pcmoe::cli::AddPolicyText(text, names, again).ok());
  FUZZ_CHECK(again.forbidden == policy.forbidden);
  return 0;
}
