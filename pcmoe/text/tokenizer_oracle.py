# pcmoe/text/tokenizer_oracle.py: trains small tokenizers of every kind and writes what Hugging
# Face's `tokenizers` makes of many hostile lines. Usage: tokenizer_oracle.py OUT COUNT
#
# OUT/KIND.json is the tokenizer, OUT/KIND.bin one record a line: text, ids without and with special
# tokens, decoded text; each a little-endian 32-bit count and then bytes or 32-bit numbers.
import array
import glob
import json
import random
import struct
import sys

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
GROUPS = [
    (0x20, 0x7E), (0x20, 0x7E), (0x61, 0x7A), (0x30, 0x39), (0x00, 0x1F), (0x7F, 0xFF),
    (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F),
    (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x2070, 0x218F), (0x2460, 0x24FF),
    (0x2580, 0x2585), (0x3000, 0x30FF), (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0xD7F0, 0xD7FF),
    (0xE000, 0xE010), (0xF900, 0xFAFF), (0xFB00, 0xFB4F), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF),
    (0xFF00, 0xFFEF), (0xFFF0, 0xFFFF), (0x10330, 0x10340), (0x1D100, 0x1D1FF), (0x1D400, 0x1D4FF),
    (0x1F1E6, 0x1F1FF), (0x1F300, 0x1F64F), (0x1F900, 0x1F9FF), (0x20000, 0x20100),
    (0x31350, 0x31360), (0xE0020, 0xE007F), (0x10FFF0, 0x10FFFF), (0x1F02, 0x1F50),
]
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u180e", "\u200b",
          "\u2028", "\u0085", "\x0b", "\x1c", "     ", "\n\n\n", " \n ", "\u202f"]
BITS = [
    "'s", "'LL", "'ſ", "don't", "\u0130", "e\u0301", "\u00e9", "\u1e9b\u0323", "\u212b",
    "\u0344", "\U0001F468\u200d\U0001F469\u200d\U0001F467", "\U0001F3F3\uFE0F\u200d\U0001F308",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629", "\u202e" "abc", "\x00", "\x00\x00", "\ud7ff",
    "\ue000", "\ufffd", "\ufffe", "1234567", "\u0663\u0664", "\u00bd", "\u2581", "\u2581\u2581",
    "<0x41>", "<unk>", "<s>", "</s>", "<|endoftext|>", "[LEFT]", "[RIGHT]", "[BOTH]", "[WORD]",
    "[word", "caf\u00e9", "cafe\u0301", "[PLAIN]", "[PLAIN", "hello", "Hello", "HELLO",
    "helloworld", "http://a.b/c?d=e&f", "x=[1,2];", "\u1100\u1161\u11a8", "\uac01",
    "\u0f71\u0f72\u0f74", "\u0344", "\u2126", "\uf900", "\u09c7\u09be", "\U0001D15E", "$100",
    "3.14", "a_b", "__init__", "\t\t"]


def sample_words():
    texts = []
    for path in sorted(glob.glob("/usr/share/common-licenses/*")):
        with open(path, encoding="utf-8", errors="ignore") as file:
            texts.append(file.read())
    return " ".join(texts).split() or ["the", "quick", "brown", "fox", "jumps"]


def make_line(rng, words):
    parts = []
    for _ in range(rng.randint(1, 12)):
        kind = rng.random()
        if kind < 0.35:
            parts.append(" ".join(rng.choice(words) for _ in range(rng.randint(1, 6))))
        elif kind < 0.55:
            low, high = rng.choice(GROUPS)
            parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 12))))
        elif kind < 0.75:
            parts.append(rng.choice(BITS))
        elif kind < 0.9:
            parts.append("".join(rng.choice(SPACES) for _ in range(rng.randint(1, 4))))
        elif kind < 0.93:
            parts.append(rng.choice(["a", "l", "\u00e9", "\u4e00", " ", "\u0301", "ab"]) *
                         rng.randint(2, 300))
        else:
            code = rng.randint(1, 0x10FFFF)
            parts.append(chr(code) if not 0xD800 <= code <= 0xDFFF else "?")
    return rng.choice(["", " ", ""]).join(parts)


def make_lines(count):
    rng = random.Random(7)
    words = sample_words()
    lines = ["", " ", "\n", "\x00", "a", "\u2581", "  ", "a" * 5000, "<s>", " <s> ", "\ufeff"]
    # Every character once: the classes and normal forms must agree on all of them.
    every = [chr(c) for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
    for at in range(0, len(every), 512):
        if at < 0x33000 or at >= 0xE0000 - 0x800 and at < 0xE1000:
            lines.append(("a" if at % 1024 else " ").join(every[at:at + 512]))
    # Every mark after another one: the canonical order must agree.
    lines += ["a\u0345" + "b\u0345".join(every[at:at + 512]) for at in range(0, 0x1F000, 512)]
    while len(lines) < count:
        lines.append(make_line(rng, words))
    return lines


def train(tokenizer, lines, vocab, special, alphabet=()):
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=special, show_progress=False,
                                  initial_alphabet=list(alphabet), max_token_length=24)
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def hostile_tokens(tokenizer):
    tokenizer.add_tokens([
        AddedToken("[LEFT]", lstrip=True, normalized=False),
        AddedToken("[RIGHT]", rstrip=True, normalized=False),
        AddedToken("[BOTH]", lstrip=True, rstrip=True, normalized=True),
        AddedToken("[WORD]", single_word=True, normalized=False),
        AddedToken("hello", single_word=True, normalized=True),
        AddedToken("caf\u00e9", normalized=True), AddedToken("[PLAIN]", normalized=False),
        AddedToken("[PLAIN", normalized=False), AddedToken("\t\t", normalized=False)])
    return tokenizer


def byte_level(lines, pre, special="<|endoftext|>", normalizer=None, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    return train(tokenizer, lines, 1500, [special], pre_tokenizers.ByteLevel.alphabet())


def split_bytes(expression):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(expression), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_fallback(lines, crossing=False, metaspace=None, **model):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", **model))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    if not crossing:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>"]
    bytes_ = ["<0x%02X>" % b for b in range(256)] if model.get("byte_fallback") else []
    ascii_lines = ["".join(c for c in line[:200] if 31 < ord(c) < 127) for line in lines]
    train(tokenizer, ascii_lines, 1500, special + bytes_)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = data["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    if metaspace:
        tokenizer.normalizer = normalizers.Sequence([])
        tokenizer.pre_tokenizer = metaspace
        tokenizer.decoder = decoders.Metaspace()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([])
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        tokenizer.decoder = decoders.Sequence([
            decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
            decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A $B", special_tokens=[("<s>", 1), ("</s>", 2)])
    return tokenizer


def make_tokenizers(lines):
    gpt2 = byte_level(lines, pre_tokenizers.ByteLevel(add_prefix_space=False))
    gpt2.post_processor = processors.ByteLevel(trim_offsets=False)
    yield "gpt2", gpt2
    llama3 = byte_level(lines, split_bytes(LLAMA3), special="<|begin_of_text|>", ignore_merges=True)
    llama3.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A",
                                      special_tokens=[("<|begin_of_text|>", 0)])])
    yield "llama3", llama3
    yield "qwen2", hostile_tokens(byte_level(lines, split_bytes(QWEN2),
                                             normalizer=normalizers.NFC()))
    yield "mixtral", byte_fallback(lines, byte_fallback=True, fuse_unk=True)
    yield "mixtral_added", hostile_tokens(byte_fallback(lines, byte_fallback=True, fuse_unk=True))
    yield "metaspace", hostile_tokens(byte_fallback(
        lines, metaspace=pre_tokenizers.Metaspace(prepend_scheme="first", split=False),
        byte_fallback=True))
    yield "unknown", byte_fallback(lines, fuse_unk=True)
    yield "crossing", byte_fallback(lines, crossing=True, byte_fallback=True)
    yield "o200k", byte_level(lines, split_bytes(O200K), normalizer=normalizers.NFKC())
    yield "digits", byte_level(lines, pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Punctuation(),
        pre_tokenizers.ByteLevel(add_prefix_space=True)]))
    suffix = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##",
                                  end_of_word_suffix="</w>"))
    suffix.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=1200, special_tokens=["<unk>"], show_progress=False,
                                  continuing_subword_prefix="##", end_of_word_suffix="</w>")
    suffix.train_from_iterator(lines[-2000:], trainer)
    yield "suffix", suffix


def main():
    out, count = sys.argv[1], int(sys.argv[2])
    lines = make_lines(count)
    sample = lines[-1500:]
    for name, tokenizer in make_tokenizers(sample):
        tokenizer.save(f"{out}/{name}.json")
        tokenizer = Tokenizer.from_file(f"{out}/{name}.json")
        encodings = tokenizer.encode_batch(lines, add_special_tokens=False)
        plain = [e.ids for e in encodings]
        with_special = [tokenizer.post_process(e, add_special_tokens=True).ids for e in encodings]
        texts = tokenizer.decode_batch(plain, skip_special_tokens=False)
        with open(f"{out}/{name}.bin", "wb") as file:
            for record in zip(lines, plain, with_special, texts):
                for field in record:
                    data = field.encode() if isinstance(field, str) else array.array("i", field)
                    file.write(struct.pack("<I", len(data)))
                    file.write(data if isinstance(data, bytes) else data.tobytes())


main()
