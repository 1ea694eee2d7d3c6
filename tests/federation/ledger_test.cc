// tests/federation/ledger_test.cc: in real runs over gRPC, what came out of each connection, kind
// by kind, and the bytes that the network library was given, are what the sender's ledger says.
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "party_threads.h"
#include "pcmoe/wire/frame.h"

namespace pcmoe::testing_federation {
namespace {

namespace fs = std::filesystem;
using Sum = border::LedgerSummary::Sum;
using Sums = std::map<std::pair<std::string, std::string>, Sum>;  // peer, kind

std::string NameOfParty(int party) { return std::string(1, static_cast<char>('a' + party)); }

// Counts what comes out of the connections, by sender and kind, and keeps the library's totals.
class CountingChannel final : public transport::Channel {
 public:
  struct Counts {
    Sums received;
    std::vector<transport::Traffic> traffic;  // by peer, at the end
  };
  CountingChannel(std::unique_ptr<transport::Channel> inner, Counts& counts)
      : inner_(std::move(inner)), counts_(counts) {}
  int parties() const override { return inner_->parties(); }
  wire::PartyIndex self() const override { return inner_->self(); }
  absl::Status Send(wire::Sealed message, absl::Time deadline) override {
    return inner_->Send(std::move(message), deadline);
  }
  std::optional<transport::Event> Next(absl::Time deadline) override {
    auto event = inner_->Next(deadline);
    if (event && event->kind == transport::Event::Kind::kMessage) {
      Sum& sum = counts_.received[{NameOfParty(event->peer),
                                   std::string(NameOf(event->message.header.kind))}];
      sum.bytes += wire::FramedBytes(event->message.payload.size());
      ++sum.messages;
    }
    return event;
  }
  void Drop(wire::PartyIndex peer, const absl::Status& why) override { inner_->Drop(peer, why); }
  absl::Status PeerStatus(wire::PartyIndex peer) const override { return inner_->PeerStatus(peer); }
  transport::Traffic TrafficWith(wire::PartyIndex peer) const override {
    return inner_->TrafficWith(peer);
  }
  void Close(absl::Time deadline) override {
    inner_->Close(deadline);
    if (!counts_.traffic.empty()) return;
    for (int peer = 0; peer < parties(); ++peer) {
      counts_.traffic.push_back(peer == self() ? transport::Traffic{} : TrafficWith(peer));
    }
  }

 private:
  std::unique_ptr<transport::Channel> inner_;
  Counts& counts_;
};

void ExpectLedgersEqualConnections(Recipe recipe, const std::set<std::string>& kinds) {
  at::set_num_threads(1);
  recipe.steps = 3;
  recipe.export_at_end = true;
  const auto parties = static_cast<size_t>(recipe.parties);
  const fs::path folder = fs::temp_directory_path() / absl::StrCat("pcmoe_ledger_", ::getpid());
  fs::remove_all(folder);
  fs::create_directories(folder);
  recipe.ledgers = folder.string();
  const transport::TestParties identities(recipe.parties);
  std::vector<CountingChannel::Counts> counts(parties);
  std::vector<std::unique_ptr<transport::Channel>> channels =
      GrpcChannels(identities, recipe.parties);
  for (size_t p = 0; p < parties; ++p) {
    channels[p] = std::make_unique<CountingChannel>(std::move(channels[p]), counts[p]);
  }
  for (const Outcome& outcome : RunParties(recipe, std::move(channels))) {
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  }
  std::set<std::string> seen;
  for (size_t from = 0; from < parties; ++from) {
    const std::string sender = NameOfParty(static_cast<int>(from));
    const auto ledger = border::VerifyLedger(folder / (sender + ".jsonl"));
    ASSERT_TRUE(ledger.ok()) << ledger.status();
    Sums received;  // from this sender, under the receiver's name
    for (size_t to = 0; to < parties; ++to) {
      for (const auto& [place, sum] : counts[to].received) {
        if (place.first == sender) {
          received[{NameOfParty(static_cast<int>(to)), place.second}] = sum;
        }
      }
    }
    EXPECT_EQ(ledger->sums, received) << "of party " << sender;
    for (size_t to = 0; to < parties; ++to) {
      Sum total;
      for (const auto& [place, sum] : ledger->sums) {
        if (place.first != NameOfParty(static_cast<int>(to))) continue;
        total.bytes += sum.bytes;
        total.messages += sum.messages;
        seen.insert(place.second);
      }
      EXPECT_EQ(counts[from].traffic[to].sent_bytes, total.bytes);
      EXPECT_EQ(counts[from].traffic[to].sent_messages, total.messages);
      EXPECT_EQ(counts[to].traffic[from].received_bytes, total.bytes);
      EXPECT_EQ(counts[to].traffic[from].received_messages, total.messages);
    }
  }
  EXPECT_EQ(seen, kinds);
  fs::remove_all(folder);
}

TEST(Ledger, EqualsTheConnectionsOfARunByRows) {
  ExpectLedgersEqualConnections(SmallRecipe("olmoe"),
                                {"begin", "expert_rows", "expert_outputs", "row_gradients",
                                 "input_gradients", "vote", "unit_weights"});
}

TEST(Ledger, EqualsTheConnectionsOfARunByWeights) {
  Recipe recipe = SmallRecipe("olmoe");
  recipe.weights = exchange::WeightsProvider::Options{};
  recipe.modes = {exchange::PartMode::kAggregated, exchange::PartMode::kAggregated,
                  exchange::PartMode::kAggregated};
  ExpectLedgersEqualConnections(recipe, {"begin", "mask_key", "unit_weights", "exponents",
                                         "masked_gradients", "masked_counts", "vote"});
}

}  // namespace
}  // namespace pcmoe::testing_federation
