// pcmoe/text/tokenizer.cc: see tokenizer.h.
#include "pcmoe/text/tokenizer.h"

#include <algorithm>
#include <mutex>

#include "absl/container/flat_hash_map.h"
#include "pcmoe/base/file.h"
#include "pcmoe/text/added_tokens.h"
#include "pcmoe/text/bpe.h"
#include "pcmoe/text/decoder.h"
#include "pcmoe/text/normalizer.h"
#include "pcmoe/text/pieces.h"
#include "pcmoe/text/pre_tokenizer.h"
#include "pcmoe/text/tokenizer_json.h"
#include "pcmoe/text/unicode.h"

namespace pcmoe::text {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{64} << 20;
constexpr size_t kMaxTextBytes = size_t{1} << 30;
// Symbols of a word are counted in 32 bits.
constexpr size_t kMaxWordBytes = (size_t{1} << 31) - 1;

// Scratch memory for as many calls as run at the same time, so that word caches outlive a call.
class ScratchPool {
 public:
  std::unique_ptr<BpeScratch> Take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_unique<BpeScratch>();
    std::unique_ptr<BpeScratch> scratch = std::move(free_.back());
    free_.pop_back();
    return scratch;
  }
  void Give(std::unique_ptr<BpeScratch> scratch) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(scratch));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<BpeScratch>> free_;  // guarded by mutex_
};

}  // namespace

struct Tokenizer::Parts {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Bpe bpe;
  Decoder decoder;
  std::vector<AddedToken> added;
  absl::flat_hash_map<int32_t, const AddedToken*> added_by_id;
  absl::flat_hash_map<std::string_view, const AddedToken*> added_by_content;
  AddedTokenFinder raw_finder;
  AddedTokenFinder normalized_finder;
  Frame frame;
  int32_t vocab_size = 0;
  mutable ScratchPool scratches;

  explicit Parts(Bpe model) : bpe(std::move(model)) {}
  absl::Status IndexAdded();
  // `utf8` cut at added tokens and normalized.
  absl::StatusOr<PieceText> Prepare(std::string_view utf8) const;
  // What `id` decodes from: an added token's normalized form, as the decoder undoes that.
  const std::string* TextOf(int32_t id) const;
};

namespace {

template <typename T>
absl::Status Assign(absl::StatusOr<T> value, T& target, absl::string_view part,
                    const std::string& origin) {
  if (!value.ok()) return WithContext(value.status(), absl::StrCat(origin, ": ", part));
  target = std::move(value).value();
  return absl::OkStatus();
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

absl::StatusOr<Tokenizer> Tokenizer::Load(const std::filesystem::path& path) {
  PCMOE_ASSIGN_OR_RETURN(const std::string bytes, base::ReadFile(path, kMaxFileBytes));
  return FromJson(bytes, path.string());
}

absl::StatusOr<Tokenizer> Tokenizer::FromJson(std::string_view json, std::string_view origin_view) {
  const std::string origin(origin_view);
  const Json file = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (file.is_discarded() || !file.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(origin, ": is not a JSON object"));
  }
  absl::StatusOr<Bpe> bpe = BpeFromJson(FieldOf(file, "model"));
  if (!bpe.ok()) return WithContext(bpe.status(), absl::StrCat(origin, ": model"));
  auto parts = std::make_unique<Parts>(std::move(bpe).value());
  PCMOE_RETURN_IF_ERROR(Assign(Normalizer::FromJson(FieldOf(file, "normalizer")), parts->normalizer,
                               "normalizer", origin));
  PCMOE_RETURN_IF_ERROR(Assign(PreTokenizer::FromJson(FieldOf(file, "pre_tokenizer")),
                               parts->pre_tokenizer, "pre_tokenizer", origin));
  PCMOE_RETURN_IF_ERROR(
      Assign(Decoder::FromJson(FieldOf(file, "decoder")), parts->decoder, "decoder", origin));
  PCMOE_RETURN_IF_ERROR(
      Assign(AddedTokensFromJson(FieldOf(file, "added_tokens"), parts->bpe, parts->normalizer),
             parts->added, "added_tokens", origin));
  PCMOE_RETURN_IF_ERROR(WithContext(parts->IndexAdded(), absl::StrCat(origin, ": added_tokens")));
  PCMOE_RETURN_IF_ERROR(Assign(FrameFromJson(FieldOf(file, "post_processor"), parts->vocab_size),
                               parts->frame, "post_processor", origin));
  return Tokenizer(std::move(parts));
}

absl::Status Tokenizer::Parts::IndexAdded() {
  vocab_size = bpe.id_bound();
  std::vector<const AddedToken*> raw;
  std::vector<const AddedToken*> normalized;
  for (const AddedToken& token : added) {
    vocab_size = std::max(vocab_size, token.id + 1);
    if (!added_by_id.emplace(token.id, &token).second) {
      return absl::InvalidArgumentError("two tokens have the same id, as the vocabulary has holes");
    }
    added_by_content.emplace(token.content, &token);
    (token.is_normalized ? normalized : raw).push_back(&token);
  }
  PCMOE_ASSIGN_OR_RETURN(raw_finder, AddedTokenFinder::Create(raw, false));
  PCMOE_ASSIGN_OR_RETURN(normalized_finder, AddedTokenFinder::Create(normalized, true));
  return absl::OkStatus();
}

absl::StatusOr<PieceText> Tokenizer::Parts::Prepare(std::string_view utf8) const {
  PieceText out;
  for (const AddedTokenFinder::Stretch& stretch : raw_finder.Find(utf8)) {
    const size_t offset = out.text.size();
    if (stretch.token != nullptr) {
      out.pieces.push_back({offset, offset, stretch.token->id, false});
      continue;
    }
    const std::string_view source = utf8.substr(stretch.begin, stretch.end - stretch.begin);
    PCMOE_ASSIGN_OR_RETURN(const std::string text, normalizer.Apply(source));
    out.text += text;
    for (const AddedTokenFinder::Stretch& inner : normalized_finder.Find(text)) {
      const int32_t id = inner.token == nullptr ? -1 : inner.token->id;
      out.pieces.push_back(
          {offset + inner.begin, offset + inner.end, id, stretch.begin == 0 && inner.begin == 0});
    }
  }
  if (out.text.size() > kMaxWordBytes / 4) {
    return absl::InvalidArgumentError("the text is too long after normalization");
  }
  return out;
}

const std::string* Tokenizer::Parts::TextOf(int32_t id) const {
  const auto found = added_by_id.find(id);
  return found == added_by_id.end() ? bpe.IdToToken(id) : &found->second->normalized;
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(std::string_view utf8,
                                                       bool add_special_tokens) const {
  if (utf8.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the text has ", utf8.size(), " bytes; at most ",
                                                   kMaxTextBytes, " are encoded"));
  }
  if (const size_t bad = FindInvalidUtf8(utf8); bad != std::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text is not valid UTF-8 at byte ", bad, "; convert it first"));
  }
  PCMOE_ASSIGN_OR_RETURN(PieceText pieces, parts_->Prepare(utf8));
  PCMOE_RETURN_IF_ERROR(parts_->pre_tokenizer.Apply(pieces));
  std::vector<int32_t> ids;
  ids.reserve(utf8.size() / 3 + 4);
  if (add_special_tokens) ids = parts_->frame.before;
  std::unique_ptr<BpeScratch> scratch = parts_->scratches.Take();
  const bool uncut = parts_->pre_tokenizer.empty();
  for (const Piece& piece : pieces.pieces) {
    if (piece.id >= 0) {
      ids.push_back(piece.id);
    } else if (uncut) {
      parts_->bpe.EncodeUncut(pieces.Of(piece), *scratch, ids);
    } else {
      parts_->bpe.Encode(pieces.Of(piece), *scratch, ids);
    }
  }
  parts_->scratches.Give(std::move(scratch));
  if (add_special_tokens) {
    ids.insert(ids.end(), parts_->frame.after.begin(), parts_->frame.after.end());
  }
  return ids;
}

absl::StatusOr<std::string> Tokenizer::Decode(std::span<const int32_t> ids,
                                              bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    const std::string* text = parts_->TextOf(id);
    if (text == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("the id ", id, " is no token's; the tokenizer has ", vocab_size()));
    }
    if (!skip_special_tokens || !IsSpecial(id)) tokens.push_back(*text);
  }
  return parts_->decoder.Apply(std::move(tokens));
}

int32_t Tokenizer::vocab_size() const { return parts_->vocab_size; }

std::optional<int32_t> Tokenizer::TokenToId(std::string_view token) const {
  const auto found = parts_->added_by_content.find(token);
  if (found != parts_->added_by_content.end()) return found->second->id;
  const int32_t id = parts_->bpe.TokenToId(token);
  return id < 0 ? std::nullopt : std::optional(id);
}

std::optional<std::string> Tokenizer::IdToToken(int32_t id) const {
  const auto found = parts_->added_by_id.find(id);
  if (found != parts_->added_by_id.end()) return found->second->content;
  const std::string* token = parts_->bpe.IdToToken(id);
  return token == nullptr ? std::nullopt : std::optional(*token);
}

bool Tokenizer::IsSpecial(int32_t id) const {
  const auto found = parts_->added_by_id.find(id);
  return found != parts_->added_by_id.end() && found->second->special;
}

std::optional<int32_t> Tokenizer::BosId() const {
  for (const char* name : {"<s>", "<|begin_of_text|>", "<bos>"}) {
    const auto id = TokenToId(name);
    if (id && IsSpecial(*id)) return id;
  }
  return std::nullopt;
}

std::optional<int32_t> Tokenizer::EosId() const {
  for (const char* name : {"</s>", "<|end_of_text|>", "<|endoftext|>", "<eos>", "<|im_end|>"}) {
    const auto id = TokenToId(name);
    if (id && IsSpecial(*id)) return id;
  }
  return std::nullopt;
}

}  // namespace pcmoe::text
