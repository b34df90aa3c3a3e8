"""Settings models as command line options: names, ranges, defaults and help texts come from the fields.

tyro reads pydantic models itself, but shows no ranges, has no word for None, takes lists as several words and reports
wrong values in a box of its own. So each word is only turned into a plain value here, and the model alone refuses it,
with the same sentence on every surface.
"""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from io import StringIO, TextIOWrapper
from typing import Annotated, Any, TextIO, TypeVar, cast

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from marigold_core.errors import SettingsError
from marigold_core.settings import Frozen

Result = TypeVar("Result")
NUMBERS = ("integer", "number")  # in JSON schemas
COMPLETION = "--tyro-print-completion"
SHELLS = ("bash", "zsh", "fish")  # that ``COMPLETION`` knows
AUTO = "auto"  # the word for None
NO_READER = 141  # exit status when the reader of a pipe has gone, as shells report it


@dataclass(frozen=True)
class Presets:
    """Named values: the option ``--option NAME`` gives the defaults of all options that the values have."""

    option: str
    values: Mapping[str, Frozen]
    default: str  # the name that holds when none is given
    description: str

    def pick(self, words: Sequence[str]) -> Frozen:
        """Read the chosen name ahead of all other options -> its values.

        Raises: SettingsError for a name that there is not.
        """
        reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        reader.add_argument(f"--{self.option}", nargs="?", dest="name")  # without a name: usage, as for any option
        name = reader.parse_known_args(words)[0].name or self.default
        if name not in self.values:
            raise SettingsError(f"{self.option} must be one of {', '.join(self.values)}, but got {name!r}.")
        return self.values[name]


def dispatch(commands: Sequence[Callable[..., int]], words: Sequence[str], program: str, description: str) -> int:
    """Run the command that the first word names -> its exit status.

    A parameter of a command that is a ``Frozen`` model becomes one option a field. Help, unknown options and missing
    ones raise SystemExit. ``COMPLETION`` and a shell print the shell's completion for ``program``.

    Raises: SettingsError for a value that the model refuses.
    """
    _check_folder()
    refuse_empty(words)
    completes = _completes(words, SHELLS)
    app = tyro.extras.SubcommandApp()
    for command in commands:
        app.command(command)
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    rules = _rules(completes=completes)
    run = partial(app.cli, prog=program, description=description, args=words, registry=rules, config=config)
    if not completes:
        return run()
    script = StringIO()
    with suppress(SystemExit), redirect_stdout(script):
        run()
    print(_completed(script.getvalue()))
    return 0


def _completes(words: Sequence[str], shells: Sequence[str] = ()) -> bool:
    """Return whether a command line asks for the completion of a shell. Raises: SettingsError if it cannot be had."""
    if not any(word.replace("_", "-").startswith("--tyro-") for word in words):
        return False
    if [*words] not in [[COMPLETION, shell] for shell in shells]:
        how = f"Only {COMPLETION} {' or '.join(shells)}, alone, prints a" if shells else "These commands have no"
        raise SettingsError(f"{how} completion of the shell; got {' '.join(words)}.")
    return True


def _completed(script: str) -> str:
    """Have a completion script of tyro's complete each value of a list once, also after "=", and names of files.

    It would offer options where a file is expected, and names of folders as if they were whole.
    """
    begun = 'current_word[: current_word.rfind(",") + 1]'
    others = 'one for one in map(str, opt["choices"]) if one not in current_word.split(",")[:-1]'
    script = script.replace('in opt["choices"]:', f"in [{begun} + {others}]:")
    script = script.replace("if flag.startswith(current_word):", 'if flag.startswith(current_word or "-" * 9):')
    words = "    words = words[1:]  # Remove program name.\n    current_word_index -= 1\n"
    script = script.replace(words, words + _AFTER_EQUALS)
    script = script.replace('COMPREPLY=($(compgen -f -- "$cur"))', "COMPREPLY=()")  # bash does it better by itself
    files = "return 0" if "COMPREPLY" in script else "{ _files; return }"  # bash looks for files by itself: -o default
    parse = "\n  # Parse completions"
    script = script.replace(parse, f'\n  [[ -z "$completions" ]] && {files}{parse}')
    return script.replace("complete -F", "complete -o bashdefault -o default -F").rstrip()


_AFTER_EQUALS = """
    while "=" in words[: current_word_index + 1]:  # which bash takes for a word
        at = words.index("=")
        if at == current_word_index:
            words[at] = ""
        else:
            del words[at]
            current_word_index -= 1
"""


def call(function: Callable[..., Result], words: Sequence[str], program: str, presets: Presets | None = None) -> Result:
    """Call a function with the values of a command line -> its result.

    Parameters are treated as by ``dispatch``. A model that ``presets`` has values for takes its defaults from the
    chosen preset, and may be a part of it: a base class of the preset's.

    Raises: SettingsError for a value that the model refuses, and for an unknown preset; SystemExit as ``dispatch``.
    """
    _check_folder()
    refuse_empty(words)
    _completes(words)
    config = (tyro.conf.OmitArgPrefixes,)
    chosen = presets.pick(words) if presets else None
    return tyro.cli(function, prog=program, args=words, registry=_rules(presets, chosen), config=config)


def for_a_reader(command: Callable[[], int | None]) -> int | None:
    """Run a command whose output may be piped or redirected -> its status.

    It is ``NO_READER`` when the reader ends early, as ``head`` does, and 1 when the disk of a redirected output is
    full.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may hold what the locale cannot write
    try:
        try:
            return command()
        finally:
            if stdout := cast("TextIO | None", sys.stdout):  # None where the process was started without one
                stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
        return NO_READER
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO) or error.filename is not None:
            raise
        discard(sys.stdout)
        print(f"The output could not be written: {error.strerror}.", file=sys.stderr)
        return 1


def discard(stream: TextIO) -> None:
    """Send the rest of a stream nowhere: the interpreter flushes it once more at its end."""
    with suppress(OSError, ValueError):  # there may be no file behind it
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _check_folder() -> None:
    """Refuse a current folder that is gone: relative paths lead nowhere, and torch ends. Raises: SettingsError."""
    try:
        os.getcwd()
    except OSError:
        raise SettingsError("The current folder was removed; change to another one.") from None


def refuse_empty(words: Sequence[str]) -> None:
    """Refuse an empty word. Raises: SettingsError."""
    for number, word in enumerate(words):
        if not word.strip() or (word.startswith("--") and word.endswith("=")):
            after = f" after {words[number - 1]}" if number and word[:2] != "--" else ""
            raise SettingsError(
                f"An argument is empty: {word.strip() or chr(39) * 2}{after}; give a value or leave it out"
                " (a variable of the shell may be unset)."
            )


def _rules(
    presets: Presets | None = None, chosen: Frozen | None = None, completes: bool = False
) -> ConstructorRegistry:
    """Make options of the fields of our models; any other type is left to tyro."""

    def fields(info: StructTypeInfo) -> StructConstructorSpec | None:
        model = cast(object, cast(Any, info).type)
        if not (isinstance(model, type) and issubclass(model, Frozen)):
            return None
        if presets is None or not isinstance(chosen, model):
            return StructConstructorSpec(model, _options(model, info.default, completes))

        names = _one_word("|".join(presets.values), str)
        choice = StructFieldSpec(presets.option, names, presets.default, presets.description)

        def make(**values: Any) -> Frozen:
            del values[choice.name]  # it has chosen the defaults of the others
            return model(**values)

        return StructConstructorSpec(make, (choice, *_options(model, chosen)))

    rules = ConstructorRegistry()
    rules.struct_rule(fields)
    return rules


def _options(model: type[Frozen], given: object, completes: bool = False) -> tuple[StructFieldSpec, ...]:
    """Describe every field of a model, its default taken from ``given`` where that is a value of it."""
    schemas = model.model_json_schema()["properties"]
    return tuple(
        StructFieldSpec(
            name,
            _type(name, schemas[name], completes),
            getattr(given, name) if isinstance(given, model) else field.default,
            field.description,
        )
        for name, field in model.model_fields.items()
    )


def _type(name: str, schema: dict[str, Any], completes: bool) -> type:
    """Turn the JSON schema of a field into a type for tyro: which word it takes, and how a default is shown."""
    kind, *others = schema.get("anyOf", [schema])
    if kind["type"] == "boolean":
        return bool
    choices: list[str] = kind.get("items", kind).get("enum", []) if completes else []
    return _one_word(_form(name, kind), _reader(kind), optional={"type": "null"} in others, choices=choices)


def _one_word(form: str, read: Callable[[str], object], optional: bool = False, choices: Sequence[str] = ()) -> type:
    """Make a type whose values are one word each; ``form`` stands for the word in help texts.

    ``choices`` are given for completion alone: tyro would refuse other words in a box of its own.
    """
    spec = PrimitiveConstructorSpec[Any](
        nargs=1,
        metavar=form,
        instance_from_str=lambda words: None if optional and words[0] == AUTO else read(words[0]),
        is_instance=lambda _: True,
        str_from_instance=lambda value: [_shown(value)],
        choices=tuple(choices) or None,
    )
    return cast(type, Annotated[Any, spec])


def _form(name: str, kind: dict[str, Any]) -> str:
    """Show what is accepted: the words, or the range: 1..20, 1.. without an end, 0..<1 without its end."""
    if kind["type"] == "array":
        if "prefixItems" in kind:
            return ",".join(_form(name, item) for item in kind["prefixItems"])
        item = _form(name, kind["items"])
        return item.replace("|", ",") if "enum" in kind["items"] else f"{item},..."
    if "enum" in kind:
        return "|".join(kind["enum"])
    if kind["type"] not in NUMBERS:
        return name.upper()
    low = f">{kind['exclusiveMinimum']}" if "exclusiveMinimum" in kind else kind.get("minimum", "")
    high = f"<{kind['exclusiveMaximum']}" if "exclusiveMaximum" in kind else kind.get("maximum", "")
    return f"{low}..{high}" if (low, high) != ("", "") else "NUMBER"


def _reader(kind: dict[str, Any]) -> Callable[[str], object]:
    """Return what turns a word into a value of a JSON schema; one of the wrong kind is left for the model to refuse."""
    if kind["type"] == "array":
        read = _reader(kind["prefixItems"][0] if "prefixItems" in kind else kind["items"])
        return lambda word: tuple(read(part.strip()) for part in word.split(","))
    return _number if kind["type"] in NUMBERS else str


def _number(word: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(word)
    return word


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, cast(tuple[object, ...], value)))
    return AUTO if value is None else str(value)
