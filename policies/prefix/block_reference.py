"""The block index as one would explain it: each holder's blocks spelled out from their first token. Slow, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from policies.prefix.block_index import REUSE, PromptKey, Source
from policies.prefix.kv_decode import BlockHash, KVEvent, Medium, Removed, Stored

Links = tuple[tuple[bytes, tuple[str, ...]], ...]  # (tokens, keys) of each block
Spelled = tuple[str, int, Links]  # after the adapter and the block size


@dataclass(slots=True)
class _Block:
    prefix: Spelled
    where: set[Medium]


class ReferenceIndex:
    """Same answers as :class:`policies.prefix.block_index.BlockIndex` with a large budget; it keeps no orphans."""

    def __init__(self) -> None:
        self._holders: dict[Source, dict[BlockHash, _Block]] = {}

    def apply(self, source: Source, events: Iterable[KVEvent]) -> None:
        blocks = self._holders.setdefault(source, {})
        for event in events:
            if isinstance(event, Stored):
                self._store(blocks, event)
            elif isinstance(event, Removed):
                for engine_hash in event.hashes:
                    if engine_hash in blocks:
                        blocks[engine_hash].where.discard(event.medium)
                        if not blocks[engine_hash].where:
                            del blocks[engine_hash]
            else:
                blocks.clear()

    def _store(self, blocks: dict[BlockHash, _Block], event: Stored) -> None:
        prefix: Spelled = (event.lora, event.block_size, ())
        if event.parent is not None and event.tokens:
            prefix = blocks[event.parent].prefix
        width = event.block_size * 4
        for i, engine_hash in enumerate(event.hashes):
            if event.tokens:
                keys = event.keys[i] if i < len(event.keys) else ()
                lora, size, links = prefix
                prefix = (lora, size, (*links, (event.tokens[i * width : (i + 1) * width], keys)))
                blocks.setdefault(engine_hash, _Block(prefix, set())).where.add(event.medium)
            elif engine_hash in blocks:
                blocks[engine_hash].where.add(event.medium)

    def match(self, tokens: bytes, key: PromptKey) -> dict[str, int]:
        """Tokens saved by each worker's longest unbroken part, without the prompt's last token."""
        best: dict[str, int] = {}
        for source, blocks in self._holders.items():
            held = {block.prefix: block.where for block in blocks.values()}
            for size in {prefix[1] for prefix in held}:
                saved = self._saved(held, tokens, size, key)
                if saved:
                    best[source.worker] = max(best.get(source.worker, 0), int(saved))
        return best

    def _saved(self, held: dict[Spelled, set[Medium]], tokens: bytes, size: int, key: PromptKey) -> float:
        links: Links = ()
        saved = 0.0
        for start in range(0, (len(tokens) // 4 - 1) // size * size * 4, size * 4):
            links = (*links, (tokens[start : start + size * 4], () if links else key.salts))
            where = held.get((key.lora, size, links))
            if where is None:
                break
            saved += size * max(REUSE[medium] for medium in where)
        return saved
