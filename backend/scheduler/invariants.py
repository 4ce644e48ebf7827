"""Every page has one owner: free, in the tree, or in one row; the host's pages: free or in the tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backend.cache.pages import PADDING_PAGE

if TYPE_CHECKING:
    from backend.cache.host_tree import HostTree
    from backend.cache.node import Node
    from backend.scheduler.loop import Scheduler
    from backend.scheduler.rows import Rows
    from backend.scheduler.window import WindowRows


class InvariantError(RuntimeError):
    """The scheduler's books do not add up."""


def check_invariants(scheduler: Scheduler) -> None:
    """Raise ``InvariantError`` unless pages, locks and slots add up."""
    _check_pages(scheduler)
    _check_locks(scheduler)
    _check_slots(scheduler)
    _check_nodes(scheduler)
    if scheduler.rows.host is not None:
        _check_host(scheduler.rows.host)
    if scheduler.rows.window is not None:
        _check_window(scheduler, scheduler.rows.window)


def idle_problem(rows: Rows) -> str | None:
    """What is wrong with the memory while no request runs, in a moment; None when nothing is."""
    slots, pages, tree = rows.slots, rows.pages, rows.radix
    if slots.free_slots != slots.num_slots:
        return f"{slots.num_slots - slots.free_slots} slots are taken"
    if tree.evictable_pages != tree.cached_pages:
        return f"{tree.cached_pages - tree.evictable_pages} cached pages are locked"
    if rows.window is not None:
        shared = rows.window.shared
        if shared.free_pages + shared.idle_pages != shared.num_pages:
            return f"{shared.num_pages} pages of windows: {shared.free_pages} free, {shared.idle_pages} cached"
    if pages.free_pages + tree.cached_pages != pages.num_pages:
        return f"{pages.num_pages} pages: {pages.free_pages} free, {tree.cached_pages} cached, the rest lost"
    return None


def _check_pages(scheduler: Scheduler) -> None:
    slots, tree = scheduler.slots, scheduler.rows.radix.all_pages()
    own = [slots.row_pages(slot)[slots.tree_pages[slot] :] for slot in range(slots.num_slots)]
    owned = np.concatenate([scheduler.rows.pages.free_list(), tree, *own])
    if not np.array_equal(np.sort(owned), np.arange(1, scheduler.rows.pages.num_pages + 1)):
        values, counts = np.unique(owned, return_counts=True)
        lost = np.setdiff1d(np.arange(1, scheduler.rows.pages.num_pages + 1), values)
        raise InvariantError(f"pages lost: {lost.tolist()}, owned twice: {values[counts > 1].tolist()}")
    if len(tree) != scheduler.rows.radix.cached_pages:
        raise InvariantError(f"the tree holds {len(tree)} pages but counts {scheduler.rows.radix.cached_pages}")
    for slot in range(slots.num_slots):
        shared = slots.row_pages(slot)[: slots.tree_pages[slot]]
        if not np.isin(shared, tree).all():
            raise InvariantError(f"slot {slot} reads pages as the tree's that the tree does not own")
        if slots.uid[slot] >= 0 and slots.pages[slot] * slots.page_size < slots.computed[slot]:
            raise InvariantError(f"slot {slot} computed {slots.computed[slot]} tokens in {slots.pages[slot]} pages")


def _check_locks(scheduler: Scheduler) -> None:
    expected: dict[int, int] = {}
    nodes: dict[int, Node] = {}
    for request in [*scheduler.requests.values(), *scheduler.running.leaving.values()]:
        node = request.node
        while node is not None and node.parent is not None:
            expected[id(node)] = expected.get(id(node), 0) + 1
            nodes[id(node)] = node
            node = node.parent
    evictable = scheduler.rows.radix.cached_pages - sum(len(node.pages) for node in nodes.values())
    if evictable != scheduler.rows.radix.evictable_pages:
        raise InvariantError(
            f"{evictable} pages are unlocked, {scheduler.rows.radix.evictable_pages} counted as evictable"
        )
    wrong = [node.locks for key, node in nodes.items() if node.locks != expected[key]]
    if wrong:
        raise InvariantError(f"{len(wrong)} nodes have a wrong lock count")


def _check_nodes(scheduler: Scheduler) -> None:
    """What is on the device is closed under prefixes, and the counts of children are right."""
    for node in scheduler.rows.radix.nodes():
        on_device = [child for child in node.children.values() if len(child.pages)]
        on_host = [child for child in node.children.values() if len(child.host)]
        if (len(on_device), len(on_host)) != (node.children_on_device, node.children_on_host):
            raise InvariantError("a node counts its children wrongly")
        if not len(node.pages) and (on_device or node.locks):
            raise InvariantError("rows read, or pages extend, a prefix that is not on the device")
        if not len(node.pages) and not len(node.host):
            raise InvariantError("a node of the tree is in no tier")


def _check_host(tree: HostTree) -> None:
    held, free = tree.host_books()
    if not np.array_equal(np.sort(np.concatenate((held, free))), np.arange(1, tree.host_pages.num_pages + 1)):
        raise InvariantError(f"host pages are lost or owned twice: {len(held)} held, {len(free)} free")


def _check_window(scheduler: Scheduler, window: WindowRows) -> None:
    """Who holds which page is counted rightly, no row holds more than it was promised, and none lacks what it sees."""
    slots, shared, tree = scheduler.slots, window.shared, window.tree
    held = [window.held(slot) for slot in range(slots.num_slots)]
    kept = np.concatenate([shared.free_list()[:0], *(node.window for node in tree.nodes())])
    kept = kept[kept != PADDING_PAGE]
    readers = np.bincount(np.concatenate([kept[:0], *held]), minlength=shared.num_pages + 1)
    if not np.array_equal(readers, shared.readers) or readers[PADDING_PAGE]:
        raise InvariantError("the readers of the window's pages are counted wrongly")
    if len(np.unique(kept)) != len(kept) or not np.array_equal(np.sort(kept), shared.kept.nonzero()[0]):
        raise InvariantError("the tree's pages of the window are not those that it keeps")
    free = np.flatnonzero((readers == 0) & ~shared.kept)[1:]
    if not np.array_equal(np.sort(shared.free_list()), free):
        raise InvariantError(f"{len(free)} pages of the window are held by nobody, {shared.free_pages} are free")
    if shared.idle_pages != np.count_nonzero(readers[kept] == 0):
        raise InvariantError(f"{shared.idle_pages} pages of the window are counted as idle")
    for node in tree.nodes():
        if len(node.window) != len(node.pages):
            raise InvariantError("a node's pages of the window do not stand beside its others")
    for slot in slots.running():
        page, computed = slots.page_size, slots.computed[slot]
        if window.end[slot] * page < computed or window.first[slot] > max(computed // page - tree.tail, 0):
            raise InvariantError(f"slot {slot} lacks pages of its window")


def _check_slots(scheduler: Scheduler) -> None:
    slots = scheduler.slots
    running = sorted(request.slot for request in scheduler.requests.values() if request.slot >= 0)
    if running != slots.running().tolist():
        raise InvariantError(f"requests run in slots {running}, slots say {slots.running().tolist()}")
    if len(running) + len(scheduler.running.leaving) + slots.free_slots != slots.num_slots:
        raise InvariantError(f"{slots.num_slots} slots: {running} running, {slots.free_slots} free, the rest lost")
