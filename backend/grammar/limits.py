"""How much work one grammar may cause; llguidance counts it in steps of its own, not in seconds."""

from __future__ import annotations

from llguidance import LLParserLimits

COMPILE_CPU_SECONDS = 0.25  # in the checker's process; the largest that are taken need a tenth of a second
XGRAMMAR_CPU_SECONDS = 2.0  # the same for a library that computes masks ahead, for every token of the vocabulary
WAIT_SECONDS = 1.0  # for a turn to be tried
CHECKER_BYTES = 2 << 30  # address space of that process
CHECKER_STACK_BYTES = 2 << 20  # a quarter of a usual stack: what fits here cannot overflow the scheduler's


def busy_after(cpu_seconds: float) -> float:
    """Seconds by the clock after which a machine has been too busy to spend ``cpu_seconds`` on a grammar."""
    return max(1.0, 4 * cpu_seconds)


def parser_limits() -> LLParserLimits:
    """Limits of compiling and of one mask, tens of milliseconds at worst; errors quote no output."""
    return LLParserLimits(
        initial_lexer_fuel=1_000_000, step_lexer_fuel=200_000, step_max_items=50_000, verbose_errors=False
    )
