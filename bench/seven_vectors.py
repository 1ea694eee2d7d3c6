# bench/seven_vectors.py: the vectors that the embedding of seven's base starts from, of public text only.
"""A base this small, trained for minutes, ends with an embedding hardly better than a random one: a linear
classifier on the mean of its vectors gets 63.0 on the mean of the seven tasks' dev files, 60.7 on random vectors.
What counting gets in a minute is better (68.6), and whoever may not change the embedding needs it most.

Vectors are the singular vectors of the positive pointwise mutual information of a token and what stands up to
WINDOW tokens left and right of it, contexts' counts to the power of 0.75 (Levy, Goldberg, Dagan: Improving
Distributional Similarity with Lessons Learned from Word Embeddings, TACL 2015). The last entry is how much more
often a token is in texts that praise than in texts that blame (opinion.jsonl), as a logarithm."""
import json
import math

import numpy
import torch

import seven_data

WINDOW = 3
VALENCE_SCALE = 2.0
_SPARE = 13  # singular vectors beyond those kept: the randomised method is good at all but its last ones


def _token_ids(tokenizer, texts):
    """The texts one after another, -1 after each; int64."""
    encoded = tokenizer.encode_batch(texts)
    return numpy.concatenate([numpy.array(e.ids + [-1], dtype=numpy.int64) for e in encoded])


def _counts(ids, vocabulary):
    """[V, V] float32: how often the column's token stands up to WINDOW tokens right of the row's, in one text."""
    text = numpy.cumsum(ids == -1)
    counts_vv = numpy.zeros(vocabulary * vocabulary, dtype=numpy.float32)
    for distance in range(1, WINDOW + 1):
        left, right = ids[:-distance], ids[distance:]
        together = (text[:-distance] == text[distance:]) & (left >= 0) & (right >= 0)
        counts_vv += numpy.bincount(left[together] * vocabulary + right[together], minlength=vocabulary**2
                                    ).astype(numpy.float32)
    return torch.from_numpy(counts_vv.reshape(vocabulary, vocabulary))


def _positive_information(counts_vv):
    rows_v = counts_vv.sum(1)
    contexts_v = counts_vv.sum(0).pow(0.75)
    share_v = (contexts_v / contexts_v.sum()).clamp_min(1e-12)
    information_vv = torch.log(counts_vv / rows_v.clamp_min(1)[:, None] / share_v)
    return torch.nan_to_num(information_vv, neginf=0).clamp_min(0)


def _valence(tokenizer, rows, vocabulary):
    """[V]: log odds of praise against blame; 0 for a token that no row has."""
    counts = {kind: numpy.zeros(vocabulary) for kind in seven_data.OPINIONS}
    for row in rows:
        for token in set(tokenizer.encode(row["text"]).ids):
            counts[row["label"]][token] += 1
    praise_v, blame_v = (counts[kind] for kind in seven_data.OPINIONS)
    odds_v = numpy.log((praise_v + 0.5) / (blame_v + 0.5))
    odds_v -= (praise_v + blame_v > 0) * math.log(praise_v.sum() / blame_v.sum())
    return torch.from_numpy(odds_v).float()


def word_vectors(folder, size):
    """[V, size] float32, entries of mean square one (the last: its own scale); from folder's public.jsonl and
    opinion.jsonl with its tokenizer.json. About a minute and 1.5 GB."""
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    vocabulary = seven_data.VOCABULARY
    ids = _token_ids(tokenizer, [row["text"] for row in seven_data.read_rows(folder / "public.jsonl")])
    right_vv = _counts(ids, vocabulary)
    both = torch.cat([_positive_information(right_vv), _positive_information(right_vv.T)], 1)
    torch.manual_seed(0)
    left, singular, _ = torch.svd_lowrank(both, q=size - 1 + _SPARE, niter=4)
    vectors_vd = (left * singular.sqrt())[:, :size - 1]
    vectors_vd = vectors_vd - vectors_vd.mean(0)
    lengths_v1 = vectors_vd.norm(dim=1, keepdim=True).clamp_min(1e-6)
    valence_v = _valence(tokenizer, seven_data.read_rows(folder / "opinion.jsonl"), vocabulary)
    return torch.cat([vectors_vd / lengths_v1 * math.sqrt(size - 1),
                      (VALENCE_SCALE * valence_v / valence_v.std())[:, None]], 1).contiguous()
