# bench/seven_kinds.py: rows with labels of public text, which teach the seven's base to name what a text is about.
"""Four sorts of rows, none of a benchmark and with none of their labels but `positive` and `negative`: words that
praise or blame, a definition's field of knowledge in gcide, what sort of thing a WordNet headword is by its
definition, and which of the text domains a piece is from."""
import random
import re

import seven_data

# What gcide writes in brackets before a definition: (Zool.).
FIELDS = {"animals": ("Zool", "Paleon"), "plants": ("Bot",), "chemistry": ("Chem",), "medicine": ("Med", "Surg"),
          "body": ("Anat", "Physiol"), "ships": ("Naut",), "law": ("Law",), "minerals": ("Min",), "life": ("Biol",),
          "music": ("Mus", "Music"), "building": ("Arch",), "war": ("Mil", "Fort"),
          "mathematics": ("Math", "Geom", "Alg", "Arith"), "physics": ("Physics", "Opt", "Elec"),
          "stars": ("Astron",), "earth": ("Geol",), "machines": ("Mach", "Mech"), "church": ("Eccl", "Theol"),
          "language": ("Gram", "Rhet")}
# The nouns that a definition of such a thing begins with: "a small city in ...".
THINGS = {"person": ("person", "inhabitant", "woman", "man", "resident", "worker", "officer", "specialist", "someone",
                     "player", "leader", "member"),
          "act": ("act", "action", "activity"), "quality": ("quality", "property", "trait", "ability", "lack"),
          "city": ("city", "town", "capital"), "state": ("state", "condition", "feeling"),
          "unit": ("unit", "quantity", "amount", "measure", "number"),
          "group": ("group", "organization", "company", "agency", "party", "collection", "set", "class"),
          "process": ("process", "method"), "plant": ("plant", "plants", "tree", "shrub", "herb", "fungus"),
          "tool": ("device", "instrument", "tool", "machine"), "language": ("language", "dialect"),
          "land": ("republic", "region", "area", "river", "island", "park", "mountain", "lake", "kingdom", "place"),
          "disease": ("disease", "disorder", "infection"),
          "animal": ("animal", "bird", "fish", "insect", "mammal", "dog"),
          "substance": ("substance", "drug", "mixture", "mineral", "metal", "compound", "alloy"),
          "genus": ("genus", "family", "order"), "time": ("period", "time", "day", "year"),
          "doctrine": ("doctrine", "study", "theory", "branch", "system", "science")}
ARTICLES = ("a", "an", "any", "the", "one", "some", "someone")
MOST_THINGS, MOST_OF_A_DOMAIN = 20000, 2500


def opinions(senses):
    """Rows with labels: words that praise and words that blame, each alone, a few together, and what
    WordNet says they mean."""
    words, rows, rng = dict(seven_data.opinion_words()), [], random.Random(2)
    for word, kind in words.items():
        rows += [{"text": word, "label": kind}] * 2
    for kind in seven_data.OPINIONS:
        mine = [word for word, its in words.items() if its == kind]
        for _ in mine:
            rows.append({"text": " ".join(rng.sample(mine, rng.randint(2, 6))), "label": kind})
    for sense in senses:
        heads, _, meaning = sense.partition(" : ")
        kinds = {words[head] for head in heads.split(" , ") if head in words}
        if len(kinds) == 1:
            rows.append({"text": meaning, "label": kinds.pop()})
    rng.shuffle(rows)
    return rows


def _by_sign(signs):
    """From each sign to the label that it stands for."""
    return {sign: label for label, its in signs.items() for sign in its}


def fields():
    """A definition with a known field, without the field's mark: up to 200 characters of it."""
    rows, label_of = [], _by_sign(FIELDS)
    for _, text in seven_data.gcide_entries():
        marks = list(re.finditer(r"\(([A-Z][a-z]+)\.?\)", text))
        for mark, following in zip(marks, marks[1:] + [None]):
            if mark.group(1) not in label_of:
                continue
            meaning = text[mark.end():following.start() if following else None]
            meaning = re.split(r"\n\s*\n|\b\d+\. |--", meaning.strip())[0]
            meaning = seven_data.spaced(re.sub(r"[{}\\]|\(\w\)", " ", meaning))[:200].rsplit(" ", 1)[0]
            if len(meaning) > 20:
                rows.append({"text": meaning, "label": label_of[mark.group(1)]})
    return rows


def things(senses):
    """The headwords of a sense whose definition says at once what sort of thing they name."""
    rows, label_of = [], _by_sign(THINGS)
    for sense in senses:
        heads, _, meaning = sense.partition(" : ")
        meaning = re.sub(r"^(\([^)]*\) )+", "", meaning)
        first = meaning.split(" ; ")[0].split(" ")[:7]
        label = next((label_of[word] for word in first if word in label_of), None)
        if first[0] in ARTICLES and label:
            rows.append({"text": heads.replace(" , ", " "), "label": label})
    return rows


def pieces(data, rng):
    """6 to 40 words from the beginning of a domain's documents, without what gives the domain away."""
    rows = []
    for domain in seven_data.DOMAINS:
        texts = [seven_data.spaced(row["text"])
                 for row in seven_data.read_rows(data / "domains" / domain / "train.jsonl")]
        rng.shuffle(texts)
        for text in texts[:MOST_OF_A_DOMAIN]:
            text = re.sub(r"^please choose the correct answer to the question : ", "", text)
            if domain == "drama":
                text = re.sub(r"^[a-z ]{1,30} : ", "", text)  # the speaker
            rows.append({"text": " ".join(text.split(" ")[:rng.randint(6, 40)]), "label": domain})
    return rows


def public_rows(data, out):
    """Writes out/opinion.jsonl, the first sort, and out/kinds.jsonl, all four, once; in a seeded order."""
    if (out / "kinds.jsonl").exists():
        return
    senses = seven_data.wordnet()[::2]  # from word to meaning, each once
    rng = random.Random(3)
    opinion = opinions(senses)
    of_fields, of_things, of_domains = fields(), things(senses), pieces(data, rng)
    for rows in (of_fields, of_things, of_domains):
        rng.shuffle(rows)
    kinds = opinion + of_fields + of_things[:MOST_THINGS] + of_domains
    rng.shuffle(kinds)
    seven_data.write_jsonl(out / "opinion.jsonl", opinion)
    seven_data.write_jsonl(out / "kinds.jsonl", kinds)
