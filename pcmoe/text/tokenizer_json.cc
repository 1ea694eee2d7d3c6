// pcmoe/text/tokenizer_json.cc: see tokenizer_json.h.
#include "pcmoe/text/tokenizer_json.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"

namespace pcmoe::text {
namespace {

absl::StatusOr<Bpe::Vocabulary> VocabularyFromJson(const Json& model) {
  const Json& vocab = FieldOf(model, "vocab");
  if (!vocab.is_object()) return absl::InvalidArgumentError("'vocab' is not an object");
  Bpe::Vocabulary vocabulary;
  vocabulary.reserve(vocab.size());
  for (const auto& [token, id] : vocab.items()) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= uint64_t{Bpe::kMaxId}) {
      return absl::InvalidArgumentError(
          absl::StrCat("'vocab' has an id that is not a whole number below ", Bpe::kMaxId));
    }
    vocabulary.emplace_back(token, id.get<int32_t>());
  }
  return vocabulary;
}

// Both spellings: "a b", and ["a", "b"] which allows spaces within.
absl::StatusOr<Bpe::Merges> MergesFromJson(const Json& model) {
  const Json& list = FieldOf(model, "merges");
  if (!list.is_array()) return absl::InvalidArgumentError("'merges' is not a list");
  Bpe::Merges merges;
  merges.reserve(list.size());
  for (const Json& merge : list) {
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      if (text.starts_with("#version")) continue;
      const size_t space = text.find(' ');
      if (space != text.npos && text.find(' ', space + 1) == text.npos) {
        merges.emplace_back(text.substr(0, space), text.substr(space + 1));
        continue;
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    return absl::InvalidArgumentError(
        absl::StrCat("'merges' has an entry, number ", merges.size(), ", that is not two tokens"));
  }
  return merges;
}

absl::StatusOr<std::string> OptionalString(const Json& object, const char* key) {
  if (FieldOf(object, key).is_null()) return std::string();
  return StringField(object, key);
}

absl::StatusOr<AddedToken> AddedTokenFromJson(const Json& json) {
  AddedToken token;
  PCMOE_ASSIGN_OR_RETURN(token.content, StringField(json, "content"));
  PCMOE_ASSIGN_OR_RETURN(token.single_word, BoolField(json, "single_word", false));
  PCMOE_ASSIGN_OR_RETURN(token.lstrip, BoolField(json, "lstrip", false));
  PCMOE_ASSIGN_OR_RETURN(token.rstrip, BoolField(json, "rstrip", false));
  PCMOE_ASSIGN_OR_RETURN(token.special, BoolField(json, "special", false));
  PCMOE_ASSIGN_OR_RETURN(token.is_normalized, BoolField(json, "normalized", !token.special));
  return token;
}

absl::Status AppendId(const Json& id, int32_t bound, std::vector<int32_t>& out) {
  if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(bound)) {
    return absl::InvalidArgumentError("an id is not one of the vocabulary");
  }
  out.push_back(id.get<int32_t>());
  return absl::OkStatus();
}

// {"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}], "special_tokens": {..}}
absl::StatusOr<Frame> TemplateFromJson(const Json& json, int32_t id_bound) {
  const Json& single = FieldOf(json, "single");
  if (!single.is_array()) return absl::InvalidArgumentError("'single' is not a list");
  Frame frame;
  bool seen = false;
  for (const Json& part : single) {
    if (const Json& sequence = FieldOf(part, "Sequence"); !sequence.is_null()) {
      if (seen || FieldOf(sequence, "id") != "A") {
        return absl::InvalidArgumentError("'single' does not have the sequence A once");
      }
      seen = true;
      continue;
    }
    PCMOE_ASSIGN_OR_RETURN(const std::string name,
                           StringField(FieldOf(part, "SpecialToken"), "id"));
    const Json& ids = FieldOf(FieldOf(FieldOf(json, "special_tokens"), name.c_str()), "ids");
    if (!ids.is_array()) return absl::InvalidArgumentError("a token of 'single' has no ids");
    for (const Json& id : ids) {
      PCMOE_RETURN_IF_ERROR(AppendId(id, id_bound, seen ? frame.after : frame.before));
    }
  }
  if (!seen) return absl::InvalidArgumentError("'single' does not have the sequence A once");
  return frame;
}

// {"cls": ["<s>", 0], "sep": ["</s>", 2]}
absl::StatusOr<Frame> ClsSepFromJson(const Json& json, int32_t id_bound) {
  Frame frame;
  for (const char* key : {"cls", "sep"}) {
    const Json& pair = FieldOf(json, key);
    if (!pair.is_array() || pair.size() != 2) {
      return absl::InvalidArgumentError(absl::StrCat("'", key, "' is not a token and its id"));
    }
    auto& out = key == std::string_view("cls") ? frame.before : frame.after;
    PCMOE_RETURN_IF_ERROR(AppendId(pair[1], id_bound, out));
  }
  return frame;
}

absl::Status AppendFrame(const Json& json, int32_t id_bound, int depth, Frame& frame) {
  PCMOE_ASSIGN_OR_RETURN(const std::string type, TypeOf(json));
  if (type == "ByteLevel") return absl::OkStatus();  // It changes offsets only.
  if (type == "Sequence") {
    const Json& parts = FieldOf(json, "processors");
    if (!parts.is_array() || depth >= kMaxNesting) {
      return absl::InvalidArgumentError("a Sequence has no list 'processors', or nests too deep");
    }
    for (const Json& part : parts) {
      PCMOE_RETURN_IF_ERROR(AppendFrame(part, id_bound, depth + 1, frame));
    }
    return absl::OkStatus();
  }
  Frame outer;
  if (type == "TemplateProcessing") {
    PCMOE_ASSIGN_OR_RETURN(outer, TemplateFromJson(json, id_bound));
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    PCMOE_ASSIGN_OR_RETURN(outer, ClsSepFromJson(json, id_bound));
  } else {
    return absl::InvalidArgumentError(absl::StrCat("the type '", type, "' is not supported"));
  }
  frame.before.insert(frame.before.begin(), outer.before.begin(), outer.before.end());
  frame.after.insert(frame.after.end(), outer.after.begin(), outer.after.end());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Bpe> BpeFromJson(const Json& model) {
  // Old files leave the type out.
  if (const Json& type = FieldOf(model, "type"); !type.is_null() && type != "BPE") {
    return absl::InvalidArgumentError("the type is not BPE, the only one supported");
  }
  const Json& dropout = FieldOf(model, "dropout");
  if (!dropout.is_null() && !(dropout.is_number() && dropout.get<double>() == 0.0)) {
    return absl::InvalidArgumentError("'dropout' is not null; ids must not depend on chance");
  }
  BpeOptions options;
  PCMOE_ASSIGN_OR_RETURN(options.unk_token, OptionalString(model, "unk_token"));
  options.has_unk = !FieldOf(model, "unk_token").is_null();
  PCMOE_ASSIGN_OR_RETURN(options.continuing_subword_prefix,
                         OptionalString(model, "continuing_subword_prefix"));
  PCMOE_ASSIGN_OR_RETURN(options.end_of_word_suffix, OptionalString(model, "end_of_word_suffix"));
  PCMOE_ASSIGN_OR_RETURN(options.fuse_unk, BoolField(model, "fuse_unk", false));
  PCMOE_ASSIGN_OR_RETURN(options.byte_fallback, BoolField(model, "byte_fallback", false));
  PCMOE_ASSIGN_OR_RETURN(options.ignore_merges, BoolField(model, "ignore_merges", false));
  PCMOE_ASSIGN_OR_RETURN(Bpe::Vocabulary vocabulary, VocabularyFromJson(model));
  PCMOE_ASSIGN_OR_RETURN(const Bpe::Merges merges, MergesFromJson(model));
  return Bpe::Create(std::move(vocabulary), merges, std::move(options));
}

absl::StatusOr<std::vector<AddedToken>> AddedTokensFromJson(const Json& list, const Bpe& bpe,
                                                            const Normalizer& normalizer) {
  std::vector<AddedToken> tokens;
  if (list.is_null()) return tokens;
  if (!list.is_array()) return absl::InvalidArgumentError("it is not a list");
  if (list.size() > static_cast<size_t>(Bpe::kMaxId)) {
    return absl::InvalidArgumentError("it is too long");
  }
  absl::flat_hash_map<std::string, size_t> index;
  auto next_id = static_cast<int32_t>(bpe.size());
  for (const Json& json : list) {
    PCMOE_ASSIGN_OR_RETURN(AddedToken token, AddedTokenFromJson(json));
    if (token.content.empty()) continue;
    token.normalized = token.content;
    if (token.is_normalized) {
      PCMOE_ASSIGN_OR_RETURN(token.normalized, normalizer.Apply(token.content));
    }
    const auto [entry, is_new] = index.try_emplace(token.content, tokens.size());
    if (!is_new) {  // Said twice: the later one counts.
      token.id = tokens[entry->second].id;
      tokens[entry->second] = std::move(token);
      continue;
    }
    token.id = bpe.TokenToId(token.content);
    if (token.id < 0) token.id = next_id++;
    tokens.push_back(std::move(token));
  }
  return tokens;
}

absl::StatusOr<Frame> FrameFromJson(const Json& processor, int32_t id_bound) {
  Frame frame;
  if (!processor.is_null()) PCMOE_RETURN_IF_ERROR(AppendFrame(processor, id_bound, 0, frame));
  return frame;
}

}  // namespace pcmoe::text
