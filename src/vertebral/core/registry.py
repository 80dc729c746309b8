"""Open families of configs: kinds of networks or losses, each registered with the function that serves it."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, get_args

from vertebral.core.config import Config
from vertebral.core.errors import ConfigError

Family = TypeVar("Family", bound=Config)
Served = TypeVar("Served", bound=Callable[..., Any])


class Registry(Generic[Family, Served]):
    """The kinds of one `family` of configs, by the name in their field `kind`.

    A kind is a config class, whose `kind` is a `Literal` of its name or names, with the function that serves it. Any
    package may add kinds, before a config that names them is read. `default` is the kind of a config that names none.
    """

    def __init__(self, family: str, default: str | None = None) -> None:
        self._family, self._default = family, default
        self._kinds: dict[str, tuple[type[Family], Served]] = {}

    def add(self, config: type[Family], function: Served) -> None:
        """Register a kind. Raises ConfigError if its name is taken."""
        names = get_args(config.model_fields["kind"].annotation)
        for name in names:
            if name in self._kinds:
                raise ConfigError(f"{self._family} {name!r} is already registered; choose another kind")
        self._kinds |= dict.fromkeys(names, (config, function))

    def parse(self, values: Any) -> Any:
        """Validate a mapping as the class that its `kind` names; anything else passes. For pydantic's BeforeValidator.

        Raises ValueError, which pydantic reports, if the kind is unknown.
        """
        if not isinstance(values, dict):
            return values
        kind = values.get("kind", self._default)
        if not isinstance(kind, str) or kind not in self._kinds:
            raise ValueError(f"unknown kind of {self._family} {kind!r}; known kinds: {', '.join(sorted(self._kinds))}")
        return self._kinds[kind][0].model_validate(values)

    def function(self, kind: str) -> Served:
        """The function that serves `kind`."""
        return self._kinds[kind][1]
