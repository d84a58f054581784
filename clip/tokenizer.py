"""CLIP's lower-casing byte-pair tokenizer (Sennrich et al., 2016), driven by the published merges
file.
"""

import gzip
import html
import itertools
from functools import lru_cache
from pathlib import Path

import ftfy
import regex
import torch
from torch import Tensor

MERGES = Path(__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
CONTEXT = 77  # tokens of a text that CLIP's text tower reads
MERGE_COUNT = 49152 - 256 - 2  # the file holds more merges than CLIP's vocabulary uses
WORDS = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+",
    regex.I,
)


def _byte_symbols() -> dict[int, str]:
    """Return one printable character per byte: Latin-1's printable bytes stand for themselves, the
    rest follow from 256 on.
    """
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


class Tokenizer:
    """Text to token ids: start, byte pairs, end, zeros up to the context length."""

    def __init__(self) -> None:
        with gzip.open(MERGES, "rt", encoding="utf-8") as file:
            pairs = [tuple(line.split()) for line in file.read().split("\n")[1 : MERGE_COUNT + 1]]

        self.symbols = _byte_symbols()
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}
        letters = list(self.symbols.values())
        words = [
            *letters,
            *(letter + "</w>" for letter in letters),
            *("".join(pair) for pair in pairs),
        ]
        self.ids = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
        self.start = self.ids["<|startoftext|>"]
        self.end = self.ids["<|endoftext|>"]
        self._merge = lru_cache(maxsize=65536)(self._merge_word)

    def _merge_word(self, word: str) -> tuple[int, ...]:
        if word in ("<|startoftext|>", "<|endoftext|>"):
            return (self.ids[word],)

        parts = [self.symbols[byte] for byte in word.encode("utf-8")]
        parts[-1] += "</w>"
        while len(parts) > 1:
            best = min(
                itertools.pairwise(parts), key=lambda pair: self.ranks.get(pair, len(self.ranks))
            )
            if best not in self.ranks:
                break
            merged = []
            i = 0
            while i < len(parts):
                pair = tuple(parts[i : i + 2])
                if pair == best:
                    merged.append("".join(pair))
                    i += 2
                else:
                    merged.append(parts[i])
                    i += 1
            parts = merged

        return tuple(self.ids[part] for part in parts)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of one text, without start and end."""
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
        text = " ".join(text.split()).lower()
        return [token for word in WORDS.findall(text) for token in self._merge(word)]

    def __call__(self, texts: list[str]) -> Tensor:
        """Return the token ids (T, CONTEXT) int64 of T texts. Raises ValueError when one is too
        long.
        """
        out = torch.zeros(len(texts), CONTEXT, dtype=torch.long)
        for row, text in zip(out, texts):
            tokens = [self.start, *self.encode(text), self.end]
            if len(tokens) > CONTEXT:
                raise ValueError(
                    f"the text {text!r} has {len(tokens)} tokens; at most {CONTEXT} fit"
                )
            row[: len(tokens)] = torch.tensor(tokens)
        return out
