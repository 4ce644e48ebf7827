"""``--workers N``: N data processes share the listening socket; one owner holds what must be known once.

The owner (:mod:`owner`) has the registry, discovery, health checks, breakers, local backends and the routes that change
them. It sends versioned snapshots to the data processes (:mod:`data`), each of which is a whole router that takes its
fleet from the snapshots instead of watching it. Work in flight lies in one shared array (:mod:`shared_load`), and each
process tells the others what it placed (:mod:`shared_policy`), so that all of them see the same loads and prefixes.
"""
