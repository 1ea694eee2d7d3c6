// pcmoe/federation/schedule.cc: see schedule.h.
#include "pcmoe/federation/schedule.h"

#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "pcmoe/base/random.h"

namespace pcmoe::federation {

int ActiveParty(uint64_t seed, uint64_t step, int parties) {
  const auto count = static_cast<uint64_t>(parties);
  base::KeyedStream::Key key{};
  std::memcpy(key.data(), &seed, sizeof(seed));
  base::KeyedStream random(key, absl::StrCat("schedule/round/", step / count));
  std::vector<int> order(count);
  std::iota(order.begin(), order.end(), 0);
  for (uint64_t i = count - 1; i > 0; --i) std::swap(order[i], order[random.Below(i + 1)]);
  return order[step % count];
}

}  // namespace pcmoe::federation
