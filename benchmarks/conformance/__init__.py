"""Other people's clients against our server: ``python -m benchmarks.conformance`` writes docs/conformance.md."""
