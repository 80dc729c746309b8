"""The base of all configs: frozen, strict, read from YAML with changes on top; and how a CT becomes an input."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from vertebral.core.errors import ConfigError

_LONGEST_SHOWN_VALUE = 60
Probability = Annotated[float, Field(ge=0, le=1)]


class Config(BaseModel):
    """Base of all configs: frozen, strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PreprocessConfig(Config):
    """How a CT becomes the network's input.

    `unit` maps the window linearly to [0, 1]. `zscore` clips to the window, then subtracts `mean_hu` and divides by
    `std_hu`; its values are not confined to [0, 1].
    """

    spacing_mm: float = Field(1.0, gt=0)
    window_hu: tuple[float, float] = (-100.0, 1000.0)
    scaling: Literal["unit", "zscore"] = "unit"
    mean_hu: float = 0.0
    std_hu: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _window_is_ordered(self) -> "PreprocessConfig":
        if self.window_hu[0] >= self.window_hu[1]:
            raise ValueError(f"window_hu {self.window_hu}: the lower bound must be below the upper one")
        return self


AnyConfig = TypeVar("AnyConfig", bound=Config)
AnyModel = TypeVar("AnyModel", bound=BaseModel)


def parse_config(kind: type[AnyConfig], values: Any, origin: str) -> AnyConfig:
    """Validate `values` as a `kind`. Raises ConfigError that names `origin` and each offending key."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_faults(error)}") from None


def changed(config: AnyModel, **values: Any) -> AnyModel:
    """Return `config` with other `values`, validated as a whole. Raises ConfigError that names each offending key."""
    kept = {name: getattr(config, name) for name in config.model_fields_set}
    try:
        return type(config).model_validate(kept | values)
    except ValidationError as error:
        raise ConfigError(_faults(error)) from None


def _faults(error: ValidationError) -> str:
    return "; ".join(_fault(one) for one in error.errors())


def _fault(error: ErrorDetails) -> str:
    """The key, the value and what is wrong with it."""
    key = ".".join(map(str, error["loc"])) or "file"
    value = repr(error["input"])
    shown = "" if error["type"] == "missing" or len(value) > _LONGEST_SHOWN_VALUE else f" = {value}"
    return f"{key}{shown}: {error['msg']}"


def load_config(kind: type[AnyConfig], path: Path, changes: Sequence[str] = ()) -> AnyConfig:
    """Read a YAML file as a `kind`, with `changes` such as `optimizer.learning_rate=1e-3` on top, values in YAML.

    Raises ConfigError where it is missing, not YAML or not valid.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file; check the path") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not a readable YAML file ({error})") from None
    for change in changes:
        _change(values, change)
    return parse_config(kind, values, str(path))


def _change(values: Any, change: str) -> None:
    """Set one key of a nested mapping. Raises ConfigError where `change` is not key=value or leads nowhere."""
    keys, equals, text = change.partition("=")
    *outer, last = keys.strip().split(".")
    for key in outer:
        values = values.setdefault(key, {}) if isinstance(values, dict) else None
    if not equals or not isinstance(values, dict):
        raise ConfigError(f"{change!r}: write it as key=value, with dots between nested keys, as in patch=[64,64,64]")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{change!r}: its value is not valid YAML") from None
