"""Settings models as command line options: names, ranges, defaults and help texts come from the fields.

Words are turned into plain values, and whether they are good is for the model alone to say, so that a wrong value
gets the same sentence on every surface.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, cast

import tyro
from pydantic import BaseModel
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from .settings import Frozen


def dispatch(commands: Sequence[Callable[..., int]], words: Sequence[str], program: str, description: str) -> int:
    """Run the command that the first word names -> its exit status.

    A parameter of a command that is a ``Frozen`` model becomes one option a field. Help, unknown options and missing
    ones raise SystemExit. Raises: SettingsError for a value that the model refuses.
    """
    app = tyro.extras.SubcommandApp()
    for command in commands:
        app.command(command)
    rules = ConstructorRegistry()
    rules.struct_rule(_fields)
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    return app.cli(prog=program, description=description, args=words, registry=rules, config=config)


def _fields(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Make options of the fields of our models; anything else is left to tyro."""
    model = info.type
    if not (isinstance(model, type) and issubclass(model, Frozen)):
        return None
    return StructConstructorSpec(model, tuple(_option(model, name) for name in model.model_fields))


def _option(model: type[BaseModel], name: str) -> StructFieldSpec:
    field = model.model_fields[name]
    schema = model.model_json_schema()["properties"][name]
    kind = schema.get("anyOf", [schema])[0]
    if kind["type"] == "boolean":
        return StructFieldSpec(name, bool, field.default, field.description)
    if kind["type"] == "array":
        form, read = ",".join(kind["items"]["enum"]), _split
    elif "enum" in kind:
        form, read = "|".join(kind["enum"]), str
    elif "minimum" in kind:
        form, read = f"{kind['minimum']}..{kind['maximum']}", _number
    else:
        form, read = name.upper(), str
    optional = field.default is None
    spec = PrimitiveConstructorSpec(
        nargs=1,
        metavar=form,
        instance_from_str=lambda words: None if optional and words[0] == "auto" else read(words[0]),
        is_instance=lambda _: True,
        str_from_instance=lambda value: ["auto" if value is None else str(value)],
    )
    return StructFieldSpec(name, cast(type, Annotated[Any, spec]), field.default, field.description)


def _split(word: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in word.split(","))


def _number(word: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            pass
    return word
