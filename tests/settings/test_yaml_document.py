"""What a YAML document may hold, where its keys stand, and what the environment may change in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.profiles.parse import parse_profile
from recorder.settings import TEXT_KEYS, check_settings
from recorder.yaml_document import MAX_MISTAKES, MAX_TEXT_BYTES, ConfigurationError, parse_document

# Pieces that YAML and the replacement of variables give a meaning to.
PIECES = [
    *(
        "a",
        "site",
        "listeners",
        "port",
        "registers",
        "0x10",
        "1",
        "-",
        "- ",
        ": ",
        ":",
        "?",
        ",",
        "[",
        "]",
        "{",
        "}",
    ),
    *(
        "\n",
        "\n  ",
        "\n- ",
        " ",
        "#",
        "&",
        "*",
        "!",
        "!!int ",
        "|",
        ">",
        "'",
        '"',
        "%",
        "@",
        "`",
        "<<",
        "---",
        "...",
    ),
    *(
        "${",
        "${A}",
        "${A:-",
        "$${",
        "\\",
        '"\\U00110000"',
        '"\\ud800"',
        "\t",
        "\r",
        "\x00",
        "\x85",
        "\ufeff",
        "\ud800",
    ),
]
yaml_like = st.lists(st.sampled_from(PIECES) | st.characters(), max_size=60).map("".join)


@given(text=st.text() | yaml_like, value=st.text(max_size=20))
def test_no_text_gets_past_the_settings(text: str, value: str) -> None:
    """Text without meaning, whatever the environment, is a ConfigurationError and nothing else."""
    with pytest.raises(ConfigurationError) as caught:
        check_settings(parse_document(text, "recorder.yaml", {"A": value}, TEXT_KEYS))
    assert all(mistake.remedy for mistake in caught.value.mistakes)


@given(text=st.text() | yaml_like)
def test_no_text_gets_past_a_profile(text: str) -> None:
    """Text without meaning is a ConfigurationError and nothing else."""
    with pytest.raises(ConfigurationError):
        parse_profile(text, "profile.yaml")


@given(text=yaml_like, value=st.text(max_size=20))
def test_line_of_every_key_is_inside_the_file(text: str, value: str) -> None:
    """Every key of a document has a line, and the line exists."""
    try:
        document = parse_document(text, "recorder.yaml", {"A": value})
    except ConfigurationError:
        return
    assert set(document.lines.values()) <= set(range(1, len(text.splitlines()) + 2))


@given(value=st.text(st.characters(exclude_categories=["Cs"])), quote=st.sampled_from(["", '"', "'"]))
def test_environment_never_adds_structure(value: str, quote: str) -> None:
    """Whatever a variable holds, it fills one scalar and leaves its neighbours alone."""
    document = parse_document(f"a: {quote}${{A}}{quote}\nb: 1", "recorder.yaml", {"A": value})
    assert list(document.data) == ["a", "b"]
    assert document.data["b"] == 1
    assert not isinstance(document.data["a"], dict | tuple)
    if quote:
        assert document.data["a"] == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${PORT}", 5001),
        ("${PORT:-1}", 5001),
        ("${NONE:-7}", 7),
        ("${EMPTY:-7}", 7),
        ("${NONE:-}", None),
        ("${EMPTY}", None),
        ("${FLAG}", True),
        ("${LIST}", "[1, 2]"),
        ('"${PORT}"', "5001"),
        ("'${NONE:-}'", ""),
        ("http://${HOST:-127.0.0.1}:${PORT}/", "http://127.0.0.1:5001/"),
        ("$${PORT}", "${PORT}"),
        ("${NESTED}", "${PORT}"),
        ("$PORT", "$PORT"),
    ],
)
def test_variable_is_replaced_as_a_shell_would(text: str, value: object) -> None:
    """A plain scalar is resolved after the replacement, a quoted one stays text, none is replaced twice."""
    environment = {"PORT": "5001", "EMPTY": "", "FLAG": "true", "LIST": "[1, 2]", "NESTED": "${PORT}"}
    assert parse_document(f"a: {text}", "recorder.yaml", environment).data == {"a": value}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0x9C84", 0x9C84),
        ("-7", -7),
        ("010", 10),
        ("0.5", 0.5),
        ("1.5e3", 1500.0),
        ("yes", True),
        ("OFF", False),
        ("~", None),
        ("1:30", "1:30"),
        ("2016-01-01", "2016-01-01"),
        (".inf", ".inf"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_plain_scalar_has_no_surprising_type(text: str, value: object) -> None:
    """Numbers, truth values and nothing are resolved; times, dates and infinities stay text."""
    assert parse_document(f"a: {text}", "recorder.yaml", {}).data == {"a": value}


def test_text_key_stays_as_written() -> None:
    """A key that holds text keeps it where the text looks like a number or a truth value."""
    text = "site: no\nscale: 0.10\nother: no"
    document = parse_document(text, "recorder.yaml", {}, frozenset({"site", "scale"}))
    assert document.data == {"site": "no", "scale": "0.10", "other": False}


def test_line_is_that_of_the_key() -> None:
    """The line of a nested key is where the key stands, and of a missing one where its parent stands."""
    document = parse_document("# first\na:\n  - b: 1\n    c: 2\n", "recorder.yaml", {})
    assert document.line_of(("a", 0, "c")) == 4
    assert document.line_of(("a", 0, "missing")) == 3
    assert document.line_of(("missing",)) == 1


def test_all_unset_variables_are_reported_together() -> None:
    """One error names every unset variable, each with its line."""
    with pytest.raises(ConfigurationError) as caught:
        parse_document("a: ${ONE}\nb: [1, '${TWO}']", "recorder.yaml", {})
    assert [(mistake.line, mistake.key) for mistake in caught.value.mistakes] == [(1, "a"), (2, "b[1]")]


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 100_000,
        "a: " + "{a: " * 100_000,
        "x" * (MAX_TEXT_BYTES + 1),
        "a: &a [1]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]",
        'a: "\\U00110000"',
        'a: "\\ud800"',
        "%YAML " + "1" * 5000 + ".1\n---\na: 1",
        "a: \x01",
        "? [a]\n: b",
        "a: !!python/name:os.system",
    ],
    ids=["lists", "mappings", "size", "aliases", "escape", "surrogate", "directive", "control", "key", "tag"],
)
def test_hostile_text_is_refused(text: str) -> None:
    """What could exhaust memory, run code or break a message is a configuration error."""
    with pytest.raises(ConfigurationError):
        parse_document(text, "recorder.yaml", {})


def test_environment_that_is_not_utf8_is_refused() -> None:
    """A variable with bytes that are not UTF-8 is named by its key before anything prints it."""
    with pytest.raises(ConfigurationError, match=r"recorder\.yaml:1: site: the text is not valid Unicode"):
        parse_document('site: "${ESS_SITE}"', "recorder.yaml", {"ESS_SITE": "\udcff"})


def test_number_of_mistakes_shown_is_bounded() -> None:
    """A file with thousands of unknown keys gives a message that ends."""
    text = "\n".join(f"key_{number}: 1" for number in range(3000))
    with pytest.raises(ConfigurationError) as caught:
        parse_profile(text, "profile.yaml")
    assert len(caught.value.mistakes) == MAX_MISTAKES
