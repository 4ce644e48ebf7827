"""Structured output on the default model: steps with forced tokens appended (jump-forward) and without.

    python -m benchmarks.structured [--cpu-threads 2]

Each schema is answered greedily twice, by the same engine: every token sampled from its mask, and forced ones appended.
Asking for log probabilities is what turns jumping off. What a step costs: ``python -m benchmarks.guided_step``.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import jsonschema
import numpy as np

from backend.config import ServerArgs
from backend.core import build_core
from backend.grammar import GrammarSpec
from backend.messages import LogprobSpec, NewRequest, ToScheduler
from backend.prompt import load_prompt, resolve_model
from backend.sampling_params import SamplingParams
from backend.scheduler.loop import Scheduler

TEXT = {"type": "string", "maxLength": 12}
WHOLE = {"type": "integer", "minimum": 0, "maximum": 999}


def record(**properties: Any) -> dict[str, Any]:
    """An object with all of these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SCHEMAS = {
    "person": record(first_name=TEXT, last_name=TEXT, age_in_years=WHOLE, is_employed={"type": "boolean"}),
    "order": record(
        order_number=WHOLE,
        delivery_address=record(street_and_number=TEXT, postal_code=WHOLE, country_code={"enum": ["DE", "FR", "US"]}),
        payment_method={"enum": ["credit_card", "bank_transfer", "cash_on_delivery"]},
    ),
    "sensor": record(
        sensor_identifier=WHOLE,
        measurement=record(temperature_celsius=WHOLE, relative_humidity_percent=WHOLE),
        battery_status={"enum": ["charging", "discharging", "not_present"]},
        requires_maintenance={"type": "boolean"},
    ),
    "call": record(name={"const": "search_documents"}, arguments=record(query=TEXT, maximum_number_of_results=WHOLE)),
}


def answer(scheduler: Scheduler, uid: int, prompt: list[int], spec: GrammarSpec, eos: list[int], jump: bool) -> Any:
    """(output tokens, steps launched for them)."""
    new = NewRequest(
        uid,
        np.array(prompt, np.int32).tobytes(),
        SamplingParams(max_new_tokens=400, temperature=0.0),
        eos,
        namespace=str(uid),
        logprobs=None if jump else LogprobSpec(),
        grammar=spec,
    )
    scheduler.receive(ToScheduler(new=[new]))
    tokens: list[int] = []
    steps = 0
    while scheduler.has_work:
        before = scheduler.stats.decode_tokens_total + scheduler.stats.prefill_tokens_total
        tokens += scheduler.step().tokens
        steps += scheduler.stats.decode_tokens_total + scheduler.stats.prefill_tokens_total > before
    return tokens, steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-threads", type=int, default=None)
    arguments = parser.parse_args()
    source = resolve_model(None)
    tokenizer = load_prompt(source).tokenizer
    core = build_core(ServerArgs(cpu_threads=arguments.cpu_threads, max_total_tokens=16384), source)
    prompt = tokenizer.encode("Here is the record as JSON:\n")
    eos = list(tokenizer.eos_token_ids)
    print(
        "| schema | tokens | steps, every token sampled | steps, forced ones appended | ratio |\n|---|---|---|---|---|"
    )
    totals = [0, 0]
    for number, (name, schema) in enumerate(SCHEMAS.items()):
        spec = GrammarSpec("json_schema", json.dumps(schema))
        plain, plain_steps = answer(core.scheduler, 2 * number + 1, prompt, spec, eos, jump=False)
        tokens, steps = answer(core.scheduler, 2 * number + 2, prompt, spec, eos, jump=True)
        for each in (plain, tokens):
            jsonschema.validate(json.loads(tokenizer.decode(each)), schema)
        totals[0] += plain_steps
        totals[1] += steps
        print(f"| {name} | {len(tokens)} | {plain_steps} | {steps} | {steps / plain_steps:.2f} |")
    print(f"| all | | {totals[0]} | {totals[1]} | {totals[1] / totals[0]:.2f} |")


if __name__ == "__main__":
    main()
