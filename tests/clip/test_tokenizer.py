"""The tokenizer against ids known from CLIP's published vocabulary."""

import pytest

from clip.tokenizer import Tokenizer

DOG = [320, 1125, 539, 320, 1929, 269]  # a photo of a dog .


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


def test_vocabulary_is_clips(tokenizer: Tokenizer) -> None:
    assert (tokenizer.start, tokenizer.end) == (49406, 49407)
    assert sorted(tokenizer.ids.values()) == list(range(49408))


def test_known_ids(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a photo of a dog.") == DOG
    assert tokenizer.encode("hello world!") == [3306, 1002, 256]
    assert tokenizer.encode("") == []


def test_rows_are_start_text_end_and_zeros(tokenizer: Tokenizer) -> None:
    tokens = tokenizer(["a photo of a dog.", ""])
    assert tokens.shape == (2, 77) and tokens.dtype.is_signed
    assert tokens[0].tolist() == [49406, *DOG, 49407] + [0] * 69
    assert tokens[1].tolist() == [49406, 49407] + [0] * 75


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("A  PHOTO\tof a\n dog. ", "a photo of a dog."),
        ("cats &amp; dogs", "cats & dogs"),
        ("cats <3 &amp;amp; dogs", "cats <3 & dogs"),
        ("cafÃ©", "café"),  # UTF-8 read as Latin-1
        ("ﬁsh", "fish"),  # a ligature
        ("it\u2019s", "it's"),  # a curly quote
    ],
)
def test_text_is_cleaned(tokenizer: Tokenizer, written: str, meant: str) -> None:
    assert tokenizer.encode(written) == tokenizer.encode(meant)


@pytest.mark.parametrize("text", ["café", "日本語", "🐶 dog", "naïve—café", "'s're 12ab_?!"])
def test_every_byte_of_a_text_is_kept(tokenizer: Tokenizer, text: str) -> None:
    words = {number: word for word, number in tokenizer.ids.items()}
    byte_of = {symbol: byte for byte, symbol in tokenizer.symbols.items()}
    symbols = "".join(words[token] for token in tokenizer.encode(text)).replace("</w>", "")
    assert bytes(byte_of[symbol] for symbol in symbols).decode() == "".join(text.split())


def test_a_text_that_fits_exactly_and_one_that_does_not(tokenizer: Tokenizer) -> None:
    assert tokenizer(["dog " * 75])[0].tolist() == [49406, *[1929] * 75, 49407]
    with pytest.raises(ValueError, match="78 tokens; at most 77"):
        tokenizer(["dog " * 76])
