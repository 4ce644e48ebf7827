"""Any decoder of ``transformers`` over our paged attention, for architectures that have no file of their own here.

``transformers`` computes everything but attention, which it hands to whoever is registered with its
``AttentionInterface``. Which layers there are, and what each asks of attention, is found by a pass without numbers.
Needs ``transformers``; nothing imports this package before such a model is served.
"""
