"""YAML as people write it: plain data, the line of every key, and errors that say what to change.

Takes the text of one YAML file, the environment for `${NAME}`, and a pydantic model; gives plain
data or a validated model. Never reads a file or the environment itself, never builds an object that
the text asks for (tags, anchors and aliases are refused), never shows a secret value.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

ModelType = TypeVar("ModelType", bound=BaseModel)

KeyPath = tuple[str | int, ...]

MAX_TEXT_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_MISTAKES = 100
SHOWN_CHARACTERS = 60

_WORDS = {"": None, "~": None, "null": None, "true": True, "yes": True, "on": True}
_WORDS |= {"false": False, "no": False, "off": False}
_INTEGER = re.compile(r"[-+]?(0x[0-9a-fA-F]{1,16}|[0-9]{1,19})")
_DECIMAL = re.compile(r"[-+]?[0-9]{1,19}\.[0-9]{1,19}([eE][-+]?[0-9]{1,2})?")
_VARIABLE = re.compile(
    r"(?P<literal>\$\$\{)|\$\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^{}]*))?\}|\$\{", re.ASCII
)
_NOT_TEXT = {"int_type", "float_type", "bool_type"}
_PLAIN_KEY = re.compile(r"\w{1,60}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing to correct: where it stands, what is wrong, and what is allowed instead."""

    file: str
    line: int
    key: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}: {key}{self.problem}; {self.remedy}"


class ConfigurationError(Exception):
    """A file that cannot be used as it is; `str` gives one line for each of its `mistakes`."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(map(str, self.mistakes)))


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a field may hold, in words that follow "allowed is"; a secret's value is never shown."""

    text: str
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML file: `data` holds dict, tuple, str, int, float, bool and None only."""

    file: str
    data: Any
    lines: Mapping[KeyPath, int]

    def line_of(self, path: KeyPath) -> int:
        """The line, from 1, of the key at `path`, or of the nearest key above that exists."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def mistake(self, path: KeyPath, problem: str, remedy: str) -> Mistake:
        """A mistake at the key at `path`."""
        return Mistake(self.file, self.line_of(path), shown_path(path), problem, remedy)

    def validate(self, model: type[ModelType]) -> ModelType:
        """The data as a `model`.

        Raises:
            ConfigurationError: with every mistake that the model finds.
        """
        try:
            return model.model_validate(self.data)
        except ValidationError as error:
            found = dict(_translated(self, model, error))
        raise ConfigurationError(
            [
                found[path]
                for path in found
                if not any(path == other[: len(path)] for other in found if other != path)
            ]
        )


def parse_document(
    text: str, file: str, environment: Mapping[str, str], text_keys: frozenset[str] = frozenset()
) -> Document:
    """Read one YAML document, with `${NAME}` and `${NAME:-default}` replaced in its scalar values.

    A plain scalar is resolved after the replacement, so that `${PORT:-5001}` is a number; a quoted
    one stays text. As in a shell, `:-` also stands in for an empty variable. `$${` is a literal `${`.
    A value can never add structure. The values of `text_keys` stay text as written.

    Raises:
        ConfigurationError: on wrong syntax, a repeated key, an unset variable, or a refused feature.
    """
    builder = _Builder(file, environment, text_keys)
    if len(text.encode(errors="replace")) > MAX_TEXT_BYTES:
        builder.refuse(1, (), "the file is too large", f"allowed are {MAX_TEXT_BYTES} bytes")
    return builder.document(text)


def shown_path(path: KeyPath) -> str:
    """A key path as people write it: `listeners[0].port`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{_shown_key(step)}" for step in path)
    return "".join(steps).removeprefix(".")


def shown_value(value: object) -> str:
    """A value as a message shows it: one line, cut where it is long."""
    match value:
        case None:
            return "an empty value"
        case dict():
            return "a mapping"
        case tuple():
            return "a list" if value else "an empty list"
        case str() if "@" in value:  # a URL may carry a password
            return "this text"
        case _:
            text = json.dumps(value, ensure_ascii=False)
            return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def nearest(word: str, known: Sequence[str]) -> str:
    """The remedy for an unknown word: the one it resembles, and all that are known."""
    close = difflib.get_close_matches(word[:SHOWN_CHARACTERS], known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}allowed is {', '.join(known)}"


def _shown_key(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) else shown_value(key)


class _Builder:
    """Builds data from the parser's events, which unlike its nodes need no deep recursion."""

    def __init__(self, file: str, environment: Mapping[str, str], text_keys: frozenset[str]) -> None:
        self.file = file
        self.environment = environment
        self.text_keys = text_keys
        self.lines: dict[KeyPath, int] = {(): 1}
        self.mistakes: list[Mistake] = []

    def refuse(self, line: int, path: KeyPath, problem: str, remedy: str) -> NoReturn:
        raise ConfigurationError(
            [*self.mistakes, Mistake(self.file, line, shown_path(path), problem, remedy)]
        ) from None

    def note(self, path: KeyPath, problem: str, remedy: str) -> None:
        self.mistakes.append(Mistake(self.file, self.lines[path], shown_path(path), problem, remedy))

    def document(self, text: str) -> Document:
        data: Any = {}
        try:
            events = yaml.parse(text, Loader=yaml.SafeLoader)
            documents = 0
            for event in events:
                if isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        self.refuse(_line(event), (), "a second document starts here", "keep one in a file")
                elif isinstance(event, yaml.NodeEvent):
                    data = self.value(event, events, ())
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self.refuse(line, (), "this character is not allowed", "write plain text in UTF-8")
        except yaml.MarkedYAMLError as error:
            unfinished = "end of stream" in str(error.problem) and error.context_mark
            mark = error.context_mark if unfinished else error.problem_mark
            problem = " ".join(str(error.problem or error.context).split())
            self.refuse(
                mark.line + 1 if mark else 1, (), f"not YAML: {problem}", "check indentation and quotes"
            )
        except (ValueError, OverflowError):  # the scanner does not check the numbers of escapes
            self.refuse(1, (), "an escape in a quoted text is out of range", "allowed is up to \\U0010ffff")
        if self.mistakes:
            raise ConfigurationError(self.mistakes)
        return Document(self.file, {} if data is None else data, self.lines)

    def value(self, event: yaml.Event, events: Iterator[yaml.Event], path: KeyPath) -> Any:
        self.lines.setdefault(path, _line(event))
        if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) or event.anchor is not None:
            self.refuse(_line(event), path, "anchors and aliases are not read", "write the value out")
        if event.tag is not None:
            self.refuse(_line(event), path, "tags (!...) are not read", "write the value without a tag")
        if len(path) > MAX_DEPTH:
            self.refuse(_line(event), (), "nested too deeply", f"allowed are {MAX_DEPTH} levels")
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return tuple(self.items(events, path))
        return self.mapping(events, path)

    def items(self, events: Iterator[yaml.Event], path: KeyPath) -> Iterator[Any]:
        for index, event in enumerate(events):
            if isinstance(event, yaml.SequenceEndEvent):
                return
            yield self.value(event, events, (*path, index))

    def mapping(self, events: Iterator[yaml.Event], path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            if not isinstance(event, yaml.ScalarEvent) or event.anchor or event.tag:
                self.refuse(_line(event), path, "a key is not a word", "write `key: value`")
            key_path = (*path, event.value)
            if event.value in data:
                self.refuse(
                    _line(event),
                    key_path,
                    f"this key stands already in line {self.lines[key_path]}",
                    "keep one of them",
                )
            self.lines[key_path] = _line(event)
            data[event.value] = self.value(next(events), events, key_path)
        return data

    def scalar(self, event: yaml.ScalarEvent, path: KeyPath) -> Any:
        text = self.replaced(event.value, path)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.note(path, "the text is not valid Unicode", "write plain text in UTF-8")
        if event.style or (path and path[-1] in self.text_keys):
            return text
        return _resolved(text)

    def replaced(self, text: str, path: KeyPath) -> str:
        def value_of(match: re.Match[str]) -> str:
            if match["literal"]:
                return "${"
            name, default = match["name"], match["default"]
            if name is None:
                self.note(
                    path, "${ starts no variable", "write ${NAME} or ${NAME:-default}, or $${ for the text ${"
                )
                return ""
            value = self.environment.get(name)
            if default is not None:
                return value or default
            if value is None:
                self.note(
                    path,
                    f"the environment variable {name} is not set",
                    f"set it, or write ${{{name}:-default}}",
                )
            return value or ""

        return _VARIABLE.sub(value_of, text)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _resolved(text: str) -> Any:
    """A plain scalar as YAML 1.2 reads it, and yes, no, on, off; without dates and base 60."""
    if (word := text.lower()) in _WORDS:
        return _WORDS[word]
    if _INTEGER.fullmatch(text):
        return int(text, 16 if "x" in text else 10)
    return float(text) if _DECIMAL.fullmatch(text) else text


def _translated(
    document: Document, model: type[BaseModel], error: ValidationError
) -> Iterator[tuple[KeyPath, Mistake]]:
    """A mistake for each of pydantic's; a list or mapping is only to blame when nothing inside it is."""
    for detail in error.errors(include_url=False, include_context=False)[:MAX_MISTAKES]:
        path: KeyPath = ()
        owner: type[BaseModel] | None = model
        field: FieldInfo | None = None
        for step in detail["loc"]:
            if isinstance(step, str) and (owner is None or step not in owner.model_fields):
                break  # an unknown key, or pydantic's name of a union's member
            path = (*path, step)
            if isinstance(step, str) and owner is not None:
                field = owner.model_fields[step]
                owner = _model_in(field.annotation)
        known = tuple(owner.model_fields) if owner else ()
        if detail["type"] == "extra_forbidden":
            word = str(detail["loc"][-1])
            yield (*path, word), document.mistake((*path, word), "unknown key", nearest(word, known))
            continue
        allowed = (
            next((item for item in field.metadata if isinstance(item, Allowed)), None) if field else None
        )
        if detail["type"] == "missing":
            problem = "is missing"
        elif allowed is not None and allowed.secret:
            problem = "this value is not allowed"
        else:
            value = detail["input"]
            quoted = (
                detail["type"] in _NOT_TEXT
                and isinstance(value, str)
                and not isinstance(_resolved(value), str)
            )
            problem = f"{shown_value(value)}{' in quotes' if quoted else ''} is not allowed"
        one_of_models = owner is not None and bool(path) and isinstance(path[-1], int)
        words = allowed.text if allowed and not one_of_models else f"a mapping with {', '.join(known)}"
        yield path, document.mistake(path, problem, f"allowed is {words}")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation such as `tuple[Model, ...]` or `Model | None` holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
