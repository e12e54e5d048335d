"""Tests of the grouping of words into sentences and paragraphs."""

from speechbox.sentences import Sentence, Word, paragraphs, split_sentences, words_in_order


def words(text: str, gap_ms: dict[int, int] | None = None) -> list[Word]:
    result, now = [], 0
    for index, part in enumerate(text.split()):
        now += (gap_ms or {}).get(index, 50)
        result.append(Word(part, now, now + 200, 0.9, "A"))
        now += 200
    return result


def texts(sentences: list[Sentence]) -> list[str]:
    return [sentence.text for sentence in sentences]


def test_punctuation_ends_a_sentence() -> None:
    assert texts(split_sentences(words('Hello. How are you? "Fine!" Good'))) == [
        "Hello.",
        "How are you?",
        '"Fine!"',
        "Good",
    ]


def test_titles_initials_and_numbers_do_not_end_a_sentence() -> None:
    assert texts(split_sentences(words("Dr. J. Smith paid 3.50 dollars, e.g. twice."))) == [
        "Dr. J. Smith paid 3.50 dollars, e.g. twice."
    ]


def test_long_pause_ends_a_sentence() -> None:
    assert texts(split_sentences(words("hold on please I am back", {3: 1300}))) == ["hold on please", "I am back"]


def test_no_words_give_no_sentences() -> None:
    assert split_sentences([]) == []


def test_sentence_is_restored_from_json() -> None:
    sentence = Sentence(tuple(words("Kept as it is.")))
    assert Sentence.from_json(sentence.to_json()) == sentence


def test_words_of_overlapping_speakers_are_in_order_of_time() -> None:
    one = Sentence((Word("a", 0, 100, 1.0), Word("c", 200, 300, 1.0)))
    other = Sentence((Word("b", 100, 200, 1.0),))
    assert [word.text for word in words_in_order([one, other])] == ["a", "b", "c"]


def test_paragraph_ends_with_the_speaker_or_after_five_sentences() -> None:
    a, b = Sentence((Word("a.", 0, 1, 1.0, "A"),)), Sentence((Word("b.", 1, 2, 1.0, "B"),))
    assert [len(group) for group in paragraphs([a, a, b, a, a, a, a, a, a])] == [2, 1, 5, 1]
