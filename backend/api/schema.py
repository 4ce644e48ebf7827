"""Reading request bodies: JSON, then fields that are not supported yet, then types, each error with field and value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import msgspec
from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from backend.api.errors import SchemaError, unsupported


def _ids_at_once(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    if isinstance(value, list) and set(map(type, value)) == {int}:
        return value
    return validate(value)


# For a union that a list of token ids belongs to: such a list is not tried against the other branches first.
IDS_AT_ONCE = WrapValidator(_ids_at_once)

Harmless = Mapping[str, tuple[Any, ...]]  # field: values that ask for what happens anyway

# Known to SGLang's clients on every generating route. Null, an empty string and an empty collection are harmless.
NOT_YET: Harmless = {
    "lora_path": (),
    "custom_logit_processor": (),
    "custom_params": (),
    "return_hidden_states": (False,),
    "session_params": (),
    "session_id": (),
    "bootstrap_host": (),
    "bootstrap_port": (),
    "bootstrap_room": (),
}
# About the choice of tokens, beside OpenAI's parameters or inside ``sampling_params``.
SAMPLING_NOT_YET: Harmless = {
    "beam_width": (1,),
    "custom_params": (),
}


class Body(BaseModel):
    """Base of all bodies: unknown fields are ignored, null means the default, and nothing is coerced."""

    model_config = ConfigDict(extra="ignore", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data

    @classmethod
    def read(cls, data: Mapping[str, Any], where: str = "") -> Self:
        """Validate; raises :class:`SchemaError` naming the first wrong field (below ``where``) and its value."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise _explain(error, where) from None


class RequestFields(Body):
    """Fields of every generating route that say nothing about tokens."""

    stream: bool = False
    priority: int = 0
    extra_key: str = ""
    cache_salt: str = ""

    @property
    def namespace(self) -> str:
        """Requests of different salts or keys share no cached prefix; the length keeps ("ab", "c") from ("a", "bc")."""
        if not (self.cache_salt or self.extra_key):
            return ""
        return f"{len(self.cache_salt)}:{self.cache_salt}{self.extra_key}"


def parse_json(raw: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises :class:`SchemaError`."""
    try:
        data = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SchemaError(f"The request body is not valid JSON: {error}") from None
    except RecursionError:
        raise SchemaError("The request body is not usable JSON: it is nested too deeply.") from None
    if not isinstance(data, dict):
        raise SchemaError(f"The request body must be a JSON object, got {_shown(data)}.")
    return data


def refuse_not_yet(data: Mapping[str, Any], *tables: Harmless) -> None:
    """Raise the 400 for the first field that asks for something Warmlane cannot do yet."""
    for table in tables:
        if table.keys().isdisjoint(data):
            continue
        for field, harmless in table.items():
            value = data.get(field)
            if value is None or value in ("", [], {}) or value in harmless:
                continue
            raise unsupported(field, value)


def _explain(error: ValidationError, where: str) -> SchemaError:
    """One line about the field that is wrong first; the branches of a union are told together."""
    details = error.errors(include_url=False, include_context=False)
    field = details[0]["loc"][:1]
    same = [each for each in details if each["loc"][:1] == field]
    reasons = list(dict.fromkeys(each["msg"] for each in same))
    name = ".".join(filter(None, [where, *map(str, field)]))
    if details[0]["type"] == "missing":
        return SchemaError(f"{name} is missing", param=name)
    # A union's branches fail at different depths; the shallowest one holds the value as the client wrote it.
    value = min(same, key=lambda each: len(each["loc"]))["input"]
    return SchemaError(f"{name}: {' or '.join(reasons)}, got {_shown(value)}", param=name)


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode() if not isinstance(value, BaseModel) else repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
