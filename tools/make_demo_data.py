#!/usr/bin/env python3
# tools/make_demo_data.py: real text for the demo: the King James Bible, split over four parties.
"""Splits the King James Bible (Debian's bible-kjv) by books over four parties that have something
to teach each other, and trains a tokenizer.

    make_demo_data.py OUT [--vocab 2048]

writes OUT/{a,b,c,d}/{train,dev}.jsonl, a document a line, and OUT/tokenizer.json:

    a  law and history         Genesis to Esther
    b  poetry and prophets     Job to Malachi
    c  gospels and acts        Matthew to Acts
    d  epistles, revelation    Romans to Revelation

A document is three verses in a row of one chapter (the last one of a chapter may be shorter); one
document in twenty, spread evenly, is for evaluation. The same OUT comes out every time; when all
of it is there already, nothing is done.

The tokenizer is a demo shortcut with a choice in it: a vocabulary shows which words occur in the
text that it was trained on. Trained on everybody's text it would tell each party about the others',
so it is trained on party a's text alone, which here plays the part of a public corpus (the others'
texts get 4 to 8 % more tokens for it). Real federations take a public tokenizer.
"""
import argparse
import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import sys

BOOKS = {"a": "Gen1:1-Esther10:10", "b": "Job1:1-Mal4:6", "c": "Matt1:1-Acts28:31",
         "d": "Rom1:1-Rev22:21"}
VERSES_PER_DOCUMENT = 3
DEV_EVERY = 20
END = "<|endoftext|>"
VERSE = re.compile(r"^(\d?[A-Za-z]+)(\d+):(\d+) (.*)$")


def read_documents(verses):
    """Texts of the documents of a range like "Gen1:1-Esther10:10"."""
    bible = shutil.which("bible")
    if bible is None:
        sys.exit("make_demo_data: the program 'bible' is missing; type: tools/setup.sh build")
    output = subprocess.run([bible, "-f", verses], capture_output=True, text=True, check=True,
                            stdin=subprocess.DEVNULL).stdout
    documents, chapter, texts = [], None, []
    for line in output.splitlines():
        match = VERSE.match(line)
        if match is None:
            sys.exit(f"make_demo_data: 'bible -f {verses}' printed a line that is no verse")
        if texts and (match.group(1, 2) != chapter or len(texts) == VERSES_PER_DOCUMENT):
            documents.append(" ".join(texts))
            texts = []
        chapter = match.group(1, 2)
        texts.append(match.group(4).strip())
    return documents + ([" ".join(texts)] if texts else [])


def write_jsonl(path, documents):
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents]
    path.write_text("".join(lines), encoding="utf-8")


def train_tokenizer(documents, vocab):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=[END], show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--vocab", type=int, default=2048)
    arguments = parser.parse_args()
    if not 512 <= arguments.vocab <= 65536:
        parser.error("--vocab must be in 512..65536")

    # The stamp is written last, so an interrupted run is done again.
    stamp = arguments.out / "made-by"
    recipe = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()
    wanted = f"tools/make_demo_data.py {recipe} vocab {arguments.vocab}\n"
    if stamp.is_file() and stamp.read_text() == wanted:
        print(f"{arguments.out}: demo data is there already", file=sys.stderr)
        return
    stamp.unlink(missing_ok=True)
    for party, verses in BOOKS.items():
        documents = read_documents(verses)
        train = [text for i, text in enumerate(documents) if i % DEV_EVERY != DEV_EVERY - 1]
        dev = documents[DEV_EVERY - 1::DEV_EVERY]
        folder = arguments.out / party
        folder.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / "train.jsonl", train)
        write_jsonl(folder / "dev.jsonl", dev)
        if party == "a":
            train_tokenizer(train, arguments.vocab).save(str(arguments.out / "tokenizer.json"))
        size = sum(map(len, train)) / 1e6
        print(f"{folder}: {len(train)} documents to train on ({size:.2f} MB), {len(dev)} to "
              "evaluate", file=sys.stderr)
    stamp.write_text(wanted)


if __name__ == "__main__":
    main()
