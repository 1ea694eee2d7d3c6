// pcmoe/federation/manifest_json.cc: the manifest as JSON, read strictly and written in one way.
#include <limits>

#include "pcmoe/federation/manifest.h"
#include "pcmoe/federation/strict_json.h"

namespace pcmoe::federation {
namespace {

using nlohmann::json;

constexpr uint64_t kAny = std::numeric_limits<uint64_t>::max();

std::vector<PartyEntry> ReadParties(const json& list, absl::Status& status) {
  std::vector<PartyEntry> parties;
  if (!list.is_array() || list.size() > kMaxParties) {
    status.Update(absl::InvalidArgumentError(
        absl::StrCat("manifest.parties must be a list of 1 to ", kMaxParties, " parties")));
    return parties;
  }
  for (const json& entry : list) {
    ObjectReader reader(entry, absl::StrCat("manifest.parties[", parties.size(), "]"),
                        {"name", "host", "port"});
    parties.push_back({reader.String("name"), reader.String("host"),
                       static_cast<uint16_t>(reader.Integer("port", 1, 65535))});
    status.Update(reader.status());
  }
  return parties;
}

Owners ReadOwners(const json& placement, absl::Status& status) {
  Owners owners;
  if (placement == "round_robin") return owners;
  const auto fail = [&] {
    status.Update(absl::InvalidArgumentError(
        "manifest.placement must be \"round_robin\" or a list with one list a layer, which has the "
        "owner of every expert as the index of a party"));
  };
  if (!placement.is_array() || placement.empty() || placement.size() > kMaxLayers) fail();
  for (const json& layer : placement) {
    if (!status.ok()) break;
    if (!layer.is_array() || layer.size() > kMaxExperts) {
      fail();
      break;
    }
    auto& row = owners.emplace_back();
    for (const json& owner : layer) {
      const bool good = owner.is_number_unsigned() && owner.get<uint64_t>() < kMaxParties;
      if (!good) fail();
      row.push_back(good ? owner.get<uint32_t>() : 0);
    }
  }
  return owners;
}

void ReadModel(const json& model, Manifest& manifest, absl::Status& status) {
  ObjectReader reader(model, "manifest.model", {"config_sha256", "checkpoint_sha256"});
  const auto digest = [&](std::string_view key) {
    const auto parsed = base::Sha256FromHex(reader.String(key));
    if (!parsed.ok()) reader.Fail(key, "must be a SHA-256 digest of 64 hexadecimal digits");
    return parsed.ok() ? *parsed : base::Sha256{};
  };
  manifest.model_config_sha256 = digest("config_sha256");
  if (reader.Has("checkpoint_sha256")) manifest.checkpoint_sha256 = digest("checkpoint_sha256");
  status.Update(reader.status());
}

void ReadLimits(const json& limits, Manifest& manifest, absl::Status& status) {
  ObjectReader reader(limits, "manifest.limits", {"max_message_bytes", "max_rows", "min_tls"});
  manifest.limits = {reader.Integer("max_message_bytes", 1, kAny),
                     reader.Integer("max_rows", 1, kAny), reader.String("min_tls")};
  status.Update(reader.status());
}

void ReadTraining(const json& training, Manifest& manifest, absl::Status& status) {
  const auto fail = [&] {
    status.Update(absl::InvalidArgumentError(
        "manifest.training must be an object of at most 200 strings of at most 1000 bytes"));
  };
  if (!training.is_object() || training.size() > 200) return fail();
  for (const auto& [key, value] : training.items()) {
    if (!value.is_string() || value.get_ref<const std::string&>().size() > 1000) return fail();
    manifest.training[key] = value.get<std::string>();
  }
}

template <typename Enum>
Enum ReadEnum(ObjectReader& reader, std::string_view key, std::initializer_list<Enum> values) {
  const std::string text = reader.String(key);
  std::string names;
  for (const Enum value : values) {
    if (NameOf(value) == text) return value;
    absl::StrAppend(&names, names.empty() ? "" : " or ", "\"", std::string(NameOf(value)), "\"");
  }
  reader.Fail(key, absl::StrCat("must be ", names));
  return *values.begin();
}

}  // namespace

absl::StatusOr<Manifest> ParseManifest(std::string_view text) {
  if (text.size() > kMaxManifestBytes) {
    return absl::InvalidArgumentError("manifest: the file is larger than 16 MiB");
  }
  auto document = ParseStrictJson(text);
  if (!document.ok()) return WithContext(document.status(), "manifest");
  ObjectReader reader(*document, "manifest",
                      {"format", "federation", "parties", "model", "seeds", "placement", "exchange",
                       "schedule", "max_steps", "limits", "training"});
  reader.Integer("format", kManifestFormat, kManifestFormat);
  Manifest manifest;
  manifest.exchange = ReadEnum(reader, "exchange", {Exchange::kRows, Exchange::kWeights});
  manifest.schedule = ReadEnum(reader, "schedule", {Schedule::kSynchronous, Schedule::kRoundRobin});
  manifest.max_steps = reader.Integer("max_steps", 1, kAny);
  const json& federation = reader.Any("federation");
  const json& seeds = reader.Any("seeds");
  const json& parties = reader.Any("parties");
  const json& model = reader.Any("model");
  const json& placement = reader.Any("placement");
  const json& limits = reader.Any("limits");
  const json& training = reader.Any("training");
  PCMOE_RETURN_IF_ERROR(reader.status());

  ObjectReader names(federation, "manifest.federation", {"id", "name"});
  manifest.id = names.String("id");
  manifest.name = names.String("name");
  ObjectReader numbers(seeds, "manifest.seeds", {"init", "schedule"});
  manifest.init_seed = numbers.Integer("init", 0, kAny);
  manifest.schedule_seed = numbers.Integer("schedule", 0, kAny);
  absl::Status status = names.status();
  status.Update(numbers.status());
  manifest.parties = ReadParties(parties, status);
  manifest.owners = ReadOwners(placement, status);
  ReadModel(model, manifest, status);
  ReadLimits(limits, manifest, status);
  ReadTraining(training, manifest, status);
  PCMOE_RETURN_IF_ERROR(status);
  PCMOE_RETURN_IF_ERROR(manifest.Validate());
  return manifest;
}

std::string Manifest::CanonicalJson() const {
  json document = {
      {"format", kManifestFormat},
      {"federation", {{"id", id}, {"name", name}}},
      {"parties", json::array()},
      {"model", {{"config_sha256", base::ToHex(model_config_sha256)}}},
      {"seeds", {{"init", init_seed}, {"schedule", schedule_seed}}},
      {"exchange", std::string(NameOf(exchange))},
      {"schedule", std::string(NameOf(schedule))},
      {"max_steps", max_steps},
      {"limits",
       {{"max_message_bytes", limits.max_message_bytes},
        {"max_rows", limits.max_rows},
        {"min_tls", limits.min_tls}}},
      {"training", json::object()},
  };
  for (const PartyEntry& party : parties) {
    document["parties"].push_back(
        {{"name", party.name}, {"host", party.host}, {"port", party.port}});
  }
  if (checkpoint_sha256.has_value()) {
    document["model"]["checkpoint_sha256"] = base::ToHex(*checkpoint_sha256);
  }
  for (const auto& [key, value] : training) document["training"][key] = value;
  document["placement"] = owners.empty() ? json("round_robin") : json(owners);
  // Names typed by people may hold bytes that are no UTF-8; dump must not throw for them.
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace pcmoe::federation
