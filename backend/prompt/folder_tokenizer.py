"""The tokenizer of a model folder: ``tokenizer.json`` and the small files around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from backend.prompt.errors import ModelError
from backend.prompt.files import id_list, read_json
from backend.prompt.tokenizer import NAMED_SPECIAL_TOKENS, Tokenizer, frame_prompt

_ADDED_TOKEN_FIELDS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


def read_folder_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokenizer in ``folder``. Raises ModelError when it has no usable ``tokenizer.json``."""
    config = read_json(folder / "tokenizer_config.json") or {}
    special = _special_tokens({**(read_json(folder / "special_tokens_map.json") or {}), **config})
    backend = _backend(folder)
    backend.add_tokens(_declared_tokens(config, special, known=_added_contents(backend)))
    # tokenizer.json says what goes around a prompt; older models say it in tokenizer_config.json alone.
    if backend.num_special_tokens_to_add(False) == 0:
        frame_prompt(
            backend,
            bos=special.get("bos_token") if config.get("add_bos_token") else None,
            eos=special.get("eos_token") if config.get("add_eos_token") else None,
        )
    return Tokenizer(
        backend,
        special_tokens=special,
        eos_token_ids=_end_ids(folder),
        chat_template=_chat_template(folder, config),
    )


def _backend(folder: Path) -> tokenizers.Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"model folder {folder} has no tokenizer.json; save the tokenizer in its fast form there")
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for whatever it cannot read
        raise ModelError(f"{path} is not a tokenizer this release can read: {error}") from error
    backend.no_truncation()
    backend.no_padding()
    return backend


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """Named special tokens as text; a token is written as text or as an object with ``content``."""
    found: dict[str, str] = {}
    for name in NAMED_SPECIAL_TOKENS:
        value = config.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[name] = text
    return found


def _added_contents(backend: tokenizers.Tokenizer) -> set[str]:
    return {token.content for token in backend.get_added_tokens_decoder().values()}


def _declared_tokens(config: dict[str, Any], special: dict[str, str], known: set[str]) -> list[AddedToken]:
    """Tokens that only ``tokenizer_config.json`` declares, in the order of their ids, then its named special tokens."""
    declared = sorted(config.get("added_tokens_decoder", {}).items(), key=lambda item: int(item[0]))
    tokens = {entry["content"]: _added_token(entry) for _, entry in declared if entry["content"] not in known}
    for text in special.values():
        if text not in known:
            tokens.setdefault(text, AddedToken(text, special=True, normalized=False))
    return list(tokens.values())


def _added_token(entry: dict[str, Any]) -> AddedToken:
    return AddedToken(**{field: entry[field] for field in _ADDED_TOKEN_FIELDS if field in entry})


def _end_ids(folder: Path) -> list[int]:
    files = (read_json(folder / name) or {} for name in ("generation_config.json", "config.json"))
    return [id for config in files for id in id_list(config.get("eos_token_id"))]


def _chat_template(folder: Path, config: dict[str, Any]) -> str | dict[str, str] | None:
    """The template from its own file, else from ``chat_template.json``, else from ``tokenizer_config.json``."""
    own = folder / "chat_template.jinja"
    template: Any = own.read_text(encoding="utf-8") if own.is_file() else None
    template = template or (read_json(folder / "chat_template.json") or {}).get("chat_template")
    template = template or config.get("chat_template")
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}
    extra = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("additional_chat_templates/*.jinja")}
    if not extra:
        return template
    return {**(template if isinstance(template, dict) else {"default": template} if template else {}), **extra}
