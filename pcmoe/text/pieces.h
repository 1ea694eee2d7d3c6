// pcmoe/text/pieces.h: a text cut in pieces, on its way from normalizer to model.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pcmoe::text {

/// A stretch of PieceText::text.
struct Piece {
  size_t begin = 0;
  size_t end = 0;
  int32_t id = -1;        ///< The added token that this is; -1 for text still to be encoded.
  bool at_start = false;  ///< Begins where the caller's text begins.
};

/// Text and its pieces in order. Pieces are never empty; text outside of all pieces is dropped.
struct PieceText {
  std::string text;
  std::vector<Piece> pieces;

  std::string_view Of(const Piece& piece) const {
    return std::string_view(text).substr(piece.begin, piece.end - piece.begin);
  }
};

}  // namespace pcmoe::text
