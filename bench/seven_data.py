# bench/seven_data.py: what the figure `seven` trains on: public text for the base, and each task's rows
# dealt out over four parties.
"""Public text is what Debian's packages say words mean (dict-gcide, dict-wn, mythes-en-us, and the opinion
words of r-cran-tidytext) and the text domains; no row of a benchmark. A dictionary's entry is written from
word to meaning and from meaning to word: to name what a text says is what the tasks ask. Everything is cut
and written the way the benchmarks are: lower case, punctuation between spaces. The same input gives the
same files."""
import gzip
import hashlib
import json
import pathlib
import random
import re
import sys
import zlib

DICTIONARIES = {"wn": "/usr/share/dictd/wn.dict.dz", "gcide": "/usr/share/dictd/gcide.dict.dz",
                "thesaurus": "/usr/share/mythes/th_en_US_v2.dat",
                "opinion": "/usr/lib/R/site-library/tidytext/data/Rdata.rdb"}
PACKAGES = "dict-gcide dict-wn mythes-en-us r-cran-tidytext"
DOMAINS = ("drama", "news", "science")  # arithmetic teaches no words
OPINIONS = ("positive", "negative")
PARTIES = ("a", "b", "c", "d")
END = "<|endoftext|>"
VOCABULARY = 8192


def spaced(text):
    """Lower case, with punctuation and clitics as words of their own, as the benchmarks have them."""
    text = text.lower().replace("``", '"').replace("''", '"')
    text = re.sub(r"n't\b", " n't", text)
    text = re.sub(r"'(s|re|ve|d|ll|m)\b", r" '\1", text)
    text = re.sub(r"([,.!?;:()\"\[\]{}])", r" \1 ", text)
    return re.sub(r"\s+", " ", text).strip()


def find_dictionary(name):
    path = pathlib.Path(DICTIONARIES[name])
    if not path.exists():
        sys.exit(f"seven: {path} is missing; install it: apt-get install --no-install-recommends {PACKAGES}")
    return path


def read_dictionary(name):
    path = find_dictionary(name)
    raw = gzip.open(path).read() if path.suffix == ".dz" else path.read_bytes()
    return raw.decode("utf-8", "replace")


def both_ways(word, meaning):
    """An entry from word to meaning, and from meaning to word."""
    return [f"{word} : {meaning}", f"{meaning} : {word}"]


def wordnet():
    """A sense a document: its words, then what they mean and how they are used; each sense once."""
    senses, seen = [], set()
    for entry in re.split(r"\n(?=\S)", read_dictionary("wn")):
        word, _, body = entry.partition("\n")
        if not body:
            continue
        body = re.sub(r"\s+", " ", body)
        for sense in re.split(r"(?:(?:^|(?<= ))(?:n|v|adj|adv|r|s)? ?\d*: )", body)[1:]:
            synonyms = re.findall(r"\[syn: (.*?)\]", sense)
            opposite = re.findall(r"\[ant: (.*?)\]", sense)
            meaning = re.sub(r"\[(syn|ant|also): .*?\]", "", sense).strip()
            words = re.findall(r"\{(.*?)\}", synonyms[0]) if synonyms else [word]
            key = meaning.lower()
            if not meaning or key in seen:
                continue
            seen.add(key)
            meaning = re.sub(r"[{}]", "", meaning)
            if opposite:
                meaning += " ; not " + " , ".join(re.findall(r"\{(.*?)\}", opposite[0]))
            senses += both_ways(spaced(" , ".join(words)), spaced(meaning))
    return senses


def gcide_entries():
    """(headword, text without etymology and sources)."""
    for entry in re.split(r"\n\n(?=[A-Z][\w' -]* \\)", read_dictionary("gcide")):
        head = re.match(r"([\w' -]+) \\", entry)
        if head:
            body = entry[head.end():].split("\n", 1)
            yield head.group(1), re.sub(r"\[[^\]]*\]", " ", body[1] if len(body) > 1 else "")


def gcide():
    """A headword a document, without cross references."""
    documents = []
    for head, text in gcide_entries():
        text = re.sub(r"--[A-Z][\w. ]*", " ", text)
        text = re.sub(r"[{}\\]|\(\w\)|\b\d+\.", " ", text)
        text = spaced(text)
        if len(text) > 20:
            documents.append(both_ways(spaced(head), text[:320])[len(documents) % 2])
    return documents


def thesaurus():
    """A sense of an adjective, adverb or verb a document: words that mean nearly the same, or the opposite."""
    documents, word = [], ""
    for line in read_dictionary("thesaurus").splitlines()[1:]:
        kind, _, rest = line.partition("|")
        if kind in ("(noun)", "(adj)", "(adv)", "(verb)"):
            if kind == "(noun)":
                continue
            others = rest.split("|")
            near = [re.sub(r" \((similar|related|generic) term\)", "", w) for w in others if "antonym" not in w]
            far = [w.replace(" (antonym)", "") for w in others if "antonym" in w]
            if len(near) >= 2:
                documents.append(spaced(word + " : " + " , ".join(near) +
                                        (" ; not " + " , ".join(far) if far else "")))
        else:
            word = kind
    return documents


def opinion_words():
    """(word, positive or negative)."""
    raw, strings = find_dictionary("opinion").read_bytes(), []
    while raw:  # objects one after another: how long, then zlib
        unpacker = zlib.decompressobj()
        found = re.findall(rb"\x00\x04\x00\x09\x00\x00\x00.([ -~]+)", unpacker.decompress(raw[4:]), re.S)
        strings = found if b"abominable" in found and b"negative" in found else strings
        raw = unpacker.unused_data
    strings = [text.decode() for text in strings]
    end = max(i for i, text in enumerate(strings) if text in OPINIONS) + 1  # a column of words, one of kinds
    begin = end
    while strings[begin - 1] in OPINIONS:
        begin -= 1
    return list(zip(strings[2 * begin - end:begin], strings[begin:end]))


def opinion_documents():
    """Each word with its kind, then lists of words of one kind."""
    words, rng = opinion_words(), random.Random(2)
    documents = [f"{word} {kind}" for word, kind in words]
    for kind in OPINIONS:
        mine = [word for word, its in words if its == kind]
        for _ in range(3 * len(mine)):
            documents.append(" , ".join(rng.sample(mine, rng.randint(2, 8))) + f" {kind}")
    return documents


def domains(data):
    """The text domains: as they are, and the way the benchmarks are written."""
    documents = []
    for domain in DOMAINS:
        for row in read_rows(data / "domains" / domain / "train.jsonl"):
            text = row["text"]
            documents += [text] if len(documents) % 3 == 0 else [spaced(text)]
    return documents


def write_jsonl(path, rows):
    """Whole or not at all: a reader beside it never sees a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    partial.replace(path)


def public_text(data, out):
    """Writes out/public.jsonl and out/tokenizer.json once, in a seeded order."""
    if (out / "tokenizer.json").exists():
        return
    documents = wordnet() + gcide() + thesaurus() + opinion_documents() + domains(data)
    random.Random(1).shuffle(documents)
    write_jsonl(out / "public.jsonl", ({"text": text} for text in documents))
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[END], show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(documents[::2], trainer)
    tokenizer.save(str(out / "tokenizer.json"))


def read_rows(path):
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def deal(data, task, out):
    """A quarter of the task's training rows to each party, by a hash of the row: the same split always."""
    rows = sorted(read_rows(data / "benchmarks" / task / "train.jsonl"),
                  key=lambda row: hashlib.sha256(json.dumps(row).encode()).hexdigest())
    for i, party in enumerate(PARTIES):
        write_jsonl(out / party / "train.jsonl", rows[i::len(PARTIES)])
    return len(rows)
