"""How much work one grammar may cause; llguidance counts it in steps of its own, not in seconds."""

from __future__ import annotations

from llguidance import LLParserLimits

COMPILE_SECONDS = 1.5  # wall clock, in the checker's process
CHECKER_BYTES = 2 << 30  # address space of that process


def parser_limits() -> LLParserLimits:
    """Limits of compiling and of one mask, tens of milliseconds at worst; errors quote no output."""
    return LLParserLimits(
        initial_lexer_fuel=1_000_000, step_lexer_fuel=200_000, step_max_items=50_000, verbose_errors=False
    )
