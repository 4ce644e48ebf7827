"""How much work one grammar may cause; llguidance counts it in steps of its own, not in seconds."""

from __future__ import annotations

from llguidance import LLParserLimits

COMPILE_CPU_SECONDS = 1.0  # in the checker's process
XGRAMMAR_CPU_SECONDS = 2.0  # the same for a library that computes masks ahead, for every token of the vocabulary
COMPILE_SECONDS = 8.0  # wall clock there: on a machine that is too busy to spend the CPU time
CHECKER_BYTES = 2 << 30  # address space of that process
CHECKER_STACK_BYTES = 2 << 20  # a quarter of a usual stack: what fits here cannot overflow the scheduler's


def parser_limits() -> LLParserLimits:
    """Limits of compiling and of one mask, tens of milliseconds at worst; errors quote no output."""
    return LLParserLimits(
        initial_lexer_fuel=1_000_000, step_lexer_fuel=200_000, step_max_items=50_000, verbose_errors=False
    )
