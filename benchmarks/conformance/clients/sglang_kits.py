"""SGLang's own test mixins from its wheel, made into tests that ask our server."""

from __future__ import annotations

import importlib
import importlib.metadata
import unittest
from types import SimpleNamespace
from typing import Any

from cases import REASON_CHARS, arguments, note, tell, version
from standin import stand_in

# module: {mixin: settings}; those about time are made small enough for a model on two CPU cores.
KITS: dict[str, dict[str, dict[str, Any]]] = {
    "basic_api_contract_kit": {"BasicAPIContractMixin": {}},
    "basic_decode_correctness_kit": {"BasicDecodeCorrectnessMixin": {"sanity_max_new_tokens_long": 64}},
    "json_constrained_kit": {"JSONConstrainedMixin": {}},
    "json_mode_kit": {"JSONModeMixin": {}},
    "regex_constrained_kit": {"RegexConstrainedMixin": {}},
    "ebnf_constrained_kit": {"EBNFConstrainedMixin": {}},
    "matched_stop_kit": {"MatchedStopMixin": {}},
    "anthropic_messages_kit": {"AnthropicMessagesMixin": {}},
    "abort_timeout_kit": {"AbortAllMixin": {"abort_all_num_requests": 8, "abort_all_max_new_tokens": 4000}},
    "pause_generation_kit": {
        "PauseResumeInPlaceMixin": {
            "pause_num_requests": 4,
            "pause_max_new_tokens": 48,
            "pause_duration": 2,
            "pause_ignore_eos": True,
        }
    },
    "spec_server_kits": {"SpecLogprobKit": {}, "SpecPenaltyKit": {}, "SpecGrammarKit": {}},
    "basic_scheduler_stress_kit": {"BasicSchedulerStressMixin": {"sanity_max_new_tokens_short": 24}},
}
SKIPPED = {
    "test_basic_math": "it asks for 17 times 23, which a model of 135M parameters does not know",
    "test_color_completion": "it asks for knowledge that a model of 135M parameters does not have",
    "test_concurrent_requests": "it asks for eight capitals, of which a model of 135M parameters knows fewer",
    "test_tool_result_image_content_conversion": "it tests SGLang's own Python code, no server",
}


class _Told(unittest.TestResult):
    """Tells each test as it ends, so that a time limit loses only those that follow."""

    def addSuccess(self, test: unittest.TestCase) -> None:
        tell(case=_name(test), state="passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        tell(case=_name(test), state="skipped", reason=reason)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        tell(case=_name(test), state="failed", reason=f"{err[0].__name__}: {err[1]}"[:REASON_CHARS])

    addError = addFailure


def _name(test: unittest.TestCase) -> str:
    return ".".join(test.id().split(".")[-2:])


def tests_of(module: str, url: str, model: str) -> unittest.TestSuite:
    """The tests of a kit's mixins. Raises ``ImportError``."""
    import openai

    kit = importlib.import_module(f"sglang.test.kits.{module}")
    suite = unittest.TestSuite()
    for name, settings in KITS[module].items():
        common = {
            "base_url": url,
            "model": model,
            "api_key": "none",
            "process": SimpleNamespace(poll=lambda: None),
            "client": openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=100),
        }
        made = type(name, (getattr(kit, name), unittest.TestCase), {**common, **settings})
        for method in unittest.defaultTestLoader.getTestCaseNames(made):
            if method in SKIPPED:
                setattr(made, method, unittest.skip(SKIPPED[method])(getattr(made, method)))
            suite.addTest(made(method))
    return suite


def main() -> None:
    args = arguments()
    version(importlib.metadata.version("sglang"))
    import transformers.processing_utils  # noqa: F401 - it looks for the package that is replaced next

    stand_in("torchvision")
    part, parts = map(int, args.part.split("/"))
    for module in list(KITS)[part - 1 :: parts]:
        try:
            suite = tests_of(module, args.url, args.model)
        except Exception as error:  # a wheel without its dependencies may fail in any way
            note(f"{module} was not imported: {type(error).__name__}: {error}")
            continue
        suite.run(_Told())


if __name__ == "__main__":
    main()
