"""What a server knows of its model beside the weights: read once, kept when the scheduler is started again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from backend.api.context import ServedModel
from backend.api.parsers.choice import ParserChoice, choose_parsers
from backend.api.sampling_defaults import model_sampling_defaults
from backend.config import ServerArgs
from backend.frontend.intake import Intake, Limits
from backend.loader.model_config import ModelConfig, load_model_config
from backend.loader.sentence_model import Pooling, read_pooling
from backend.messages import SchedulerReady
from backend.prompt import ModelSource, PromptAssets, load_prompt, resolve_model


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where the model is, and its configuration."""

    source: ModelSource
    config: ModelConfig


@dataclass(frozen=True, slots=True)
class Words:
    """How the model reads and writes."""

    assets: PromptAssets | None  # None: token ids only
    parsers: ParserChoice
    sampling_defaults: Mapping[str, float]

    def intake(self, args: ServerArgs, config: ModelConfig, ready: SchedulerReady) -> Intake:
        """What makes requests of prompts, within the sizes of the scheduler that is ``ready``."""
        limits = Limits(ready.context_length, ready.vocab_size, args.allow_auto_truncate, ready.task)
        if self.assets is None:
            return Intake(None, None, limits, config.eos_token_ids)
        return Intake(self.assets.tokenizer, self.assets.template, limits)


async def find_model(args: ServerArgs) -> ModelFiles:
    """Look the model up, downloading what is missing. Raises ``ModelError``."""
    source = await asyncio.to_thread(
        resolve_model, args.model_path, revision=args.revision, download_dir=args.download_dir
    )
    return ModelFiles(source, await asyncio.to_thread(load_model_config, source, args))


async def read_words(args: ServerArgs, source: ModelSource) -> Words:
    """Tokeniser, chat template, parsers and sampling defaults. Raises ``ModelError`` and ``TemplateError``."""
    assets = await asyncio.to_thread(_load_prompt, args, source)
    template = assets.template if assets is not None else None
    return Words(
        assets=assets,
        parsers=choose_parsers(args.reasoning_parser, args.tool_call_parser, "" if template is None else template.text),
        sampling_defaults=model_sampling_defaults(source) if args.sampling_defaults == "model" else {},
    )


def _load_prompt(args: ServerArgs, source: ModelSource) -> PromptAssets | None:
    if args.skip_tokenizer_init:
        return None
    return load_prompt(source, args.chat_template, args.tokenizer_path)


def describe(args: ServerArgs, files: ModelFiles) -> ServedModel:
    """The model as ``/model_info`` tells it."""
    source = files.source
    pooling = read_pooling(source.path) if source.kind == "folder" else None
    return ServedModel(
        name=args.served_model_name or source.name,
        path=args.model_path or source.name,
        tokenizer_path=args.tokenizer_path or args.model_path or source.name,
        model_type=files.config.model_type,
        architectures=(files.config.architecture,),
        hidden_size=files.config.hidden_size,
        pooling=pooling or Pooling(),
        classes=files.config.classes,
    )
