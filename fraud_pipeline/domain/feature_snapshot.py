"""Snapshots of feature state: canonical bytes, with what no later event can reach left out.

Layout: magic, SHA-256 of all that follows (32 bytes), the length of a JSON header (8 bytes, little endian), the header, the
ids, the arrays. Customers are in the order of their ids and entities by kind and id, so two states made of the
same log give the same bytes, whoever computed them.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.feature_layout import (
    DAY_WORDS,
    EVENT_WORDS,
    MARK_WORDS,
    MINUTE_WORDS,
    NEVER,
    NOTHING,
    PAIRS_USED,
    SMALLEST_BLOCK,
    STAMP,
    FeatureArrays,
    blank_pairs,
    empty_arrays,
)
from fraud_pipeline.domain.feature_lists import entry_point, pair_slot, push
from fraud_pipeline.domain.feature_own_history import derive_customer
from fraud_pipeline.domain.feature_spec import SCHEMA_HASH, STATE_HORIZON_US
from fraud_pipeline.errors import StateError

if TYPE_CHECKING:
    from fraud_pipeline.domain.feature_state import FeatureState

MAGIC: Final = b"fraud-feature-state-1\n"
_CUSTOMER_STRIDES: Final = np.array([EVENT_WORDS, DAY_WORDS], np.int64)
_ENTITY_STRIDES: Final = np.array([MINUTE_WORDS, MINUTE_WORDS, MARK_WORDS], np.int64)
_CUSTOMER_FACTS: Final = (
    "hash",
    "first_time",
    "last_time",
    "last_device",
    "last_country",
    "latitude",
    "longitude",
    "located_at",
)
_ENTITY_FACTS: Final = ("kind", "folded", "settled", "touched")
_SAVED: Final = ("heap", "allocator", "clock", "customers", "customer_lists", "entities", "entity_lists")


@entry_point
def _mark_used(heap, lists, customers, used):
    """Mark the merchants, devices and countries that kept events of these customers name."""
    for c in customers:
        offset, head, length = lists[2 * c, 0], lists[2 * c, 2], lists[2 * c, 3]
        for i in range(head, head + length):
            at = offset + i * EVENT_WORDS
            used[heap[at + 2] >> 32] = True
            if heap[at + 2] & 0xFFFFFFFF > 0:
                used[(heap[at + 2] & 0xFFFFFFFF) - 1] = True
            if heap[at + 3] >= 0:
                used[heap[at + 3]] = True


@entry_point
def _copy_lists(old_heap, old_lists, rows, strides, heap, allocator, lists, renamed):
    """Copy the lists of some owners, packed; with `renamed` (not empty) entity slots inside events are renamed."""
    each = strides.shape[0]
    for owner in range(rows.shape[0]):
        for which in range(each):
            stride, old = strides[which], each * rows[owner] + which
            at = old_lists[old, 0] + old_lists[old, 2] * stride
            for _ in range(old_lists[old, 3]):
                new = push(heap, allocator, lists, each * owner + which, stride)
                for word in range(stride):
                    heap[new + word] = old_heap[at + word]
                if renamed.shape[0] > 0 and which == 0:
                    device = (heap[new + 2] & 0xFFFFFFFF) - 1
                    device = renamed[device] if device >= 0 else NOTHING
                    heap[new + 2] = (renamed[heap[new + 2] >> 32] << 32) | (device + 1)
                    if heap[new + 3] >= 0:
                        heap[new + 3] = renamed[heap[new + 3]]
                at += stride


@entry_point
def _insert_pairs(table, keys, times):
    for i in range(keys.shape[0]):
        slot = pair_slot(table, keys[i])
        table[slot, 0] = keys[i]
        table[slot, 1] = times[i]


@entry_point
def _derive_all(state, customers):
    for slot in range(customers):
        derive_customer(state, slot)


def compacted(state: FeatureState) -> FeatureState:
    """The same state in canonical order, without customers and entities that no later event can look back at."""
    from fraud_pipeline.domain.feature_state import FORGET_AFTER_US, FeatureState

    arrays, oldest = state.arrays, state.watermark_us - FORGET_AFTER_US
    last = arrays.customers["last_time"]
    people = sorted(
        (name, slot) for name, slot in state.customers.items() if last[slot] != NEVER and last[slot] >= oldest
    )
    kept = np.array([slot for _, slot in people], np.int64)
    keys, times = _live_pairs(arrays, kept)
    alive = _alive_entities(arrays, kept, keys, oldest)
    shared = [sorted((name, slot) for name, slot in slots.items() if alive[slot]) for slots in state.entities]
    order = np.array([slot for slots in shared for _, slot in slots], np.int64)
    renamed = np.full(len(arrays.entities) + 1, NOTHING, np.int64)
    renamed[order] = np.arange(len(order))
    names = tuple({name: int(renamed[slot]) for name, slot in slots} for slots in shared)
    fresh = _copied(arrays, kept, order, renamed)
    customers = {name: i for i, (name, _) in enumerate(people)}
    person = np.full(len(arrays.customers), NOTHING, np.int64)
    person[kept] = np.arange(len(kept))
    fresh = _with_pairs(fresh, (person[keys >> 32] << 32) | renamed[keys & 0xFFFFFFFF], times)
    compact = FeatureState(fresh, customers, names, state.time_zone)
    _derive_all(fresh, len(customers))
    return compact


def _live_pairs(
    arrays: FeatureArrays, kept: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Keys and times of the pairs that the kept customers can still look back at."""
    pairs = arrays.pairs[arrays.pairs[:, 0] != NOTHING]
    known = np.zeros(len(arrays.customers), bool)
    known[kept] = True
    people = pairs[:, 0] >> 32
    live = known[people] & (pairs[:, 1] >= arrays.customers["last_time"][people] - STATE_HORIZON_US)
    return pairs[live, 0], pairs[live, 1]


def _alive_entities(
    arrays: FeatureArrays, kept: npt.NDArray[np.int64], keys: npt.NDArray[np.int64], oldest: int
) -> npt.NDArray[np.bool_]:
    alive = np.zeros(len(arrays.entities), bool)
    _mark_used(arrays.heap, arrays.customer_lists, kept, alive)
    alive[keys & 0xFFFFFFFF] = True
    customers = arrays.customers[kept]
    for name in ("last_device", "last_country"):
        alive[customers[name][customers[name] >= 0]] = True
    holds = arrays.entity_lists[:, 3].reshape(-1, 3).any(axis=1)
    touched = arrays.entities["touched"]
    alive |= holds & ((touched == NEVER) | (touched >= oldest))
    return alive


def _copied(
    arrays: FeatureArrays,
    customers: npt.NDArray[np.int64],
    entities: npt.NDArray[np.int64],
    renamed: npt.NDArray[np.int64],
) -> FeatureArrays:
    words = _words(arrays.customer_lists, customers, _CUSTOMER_STRIDES) + _words(
        arrays.entity_lists, entities, _ENTITY_STRIDES
    )
    fresh = empty_arrays(max(len(customers), 1), max(len(entities), 1), max(words, 1))
    for name in _CUSTOMER_FACTS:
        fresh.customers[name][: len(customers)] = arrays.customers[name][customers]
    for name in ("last_device", "last_country"):
        fresh.customers[name][: len(customers)] = renamed[arrays.customers[name][customers]]
    for name in _ENTITY_FACTS:
        fresh.entities[name][: len(entities)] = arrays.entities[name][entities]
    nothing = np.empty(0, np.int64)
    _copy_lists(
        arrays.heap,
        arrays.customer_lists,
        customers,
        _CUSTOMER_STRIDES,
        fresh.heap,
        fresh.allocator,
        fresh.customer_lists,
        renamed,
    )
    _copy_lists(
        arrays.heap,
        arrays.entity_lists,
        entities,
        _ENTITY_STRIDES,
        fresh.heap,
        fresh.allocator,
        fresh.entity_lists,
        nothing,
    )
    fresh.clock[:] = arrays.clock
    fresh.clock[STAMP] = 0
    return fresh


def _words(lists: npt.NDArray[np.int64], owners: npt.NDArray[np.int64], strides: npt.NDArray[np.int64]) -> int:
    """Heap words that packed copies of these lists take while they grow (freed blocks are reused or lie idle)."""
    lengths = lists[:, 3].reshape(-1, len(strides))[owners] * strides
    blocks = np.maximum(2 ** np.ceil(np.log2(np.maximum(lengths, SMALLEST_BLOCK))), SMALLEST_BLOCK)
    return int((2 * blocks * (lengths > 0)).sum())


def _with_pairs(arrays: FeatureArrays, keys: npt.NDArray[np.int64], times: npt.NDArray[np.int64]) -> FeatureArrays:
    size = 64
    while size < 4 * (len(keys) + 1):
        size *= 2
    order = np.argsort(keys)
    table = blank_pairs(size)
    _insert_pairs(table, keys[order], times[order])
    arrays.clock[PAIRS_USED] = len(keys)
    return arrays._replace(pairs=table)


def snapshotted(state: FeatureState) -> bytes:
    """The canonical bytes of a state."""
    compact = compacted(state)
    arrays = compact.arrays
    customers = arrays.customers.copy()
    for name in customers.dtype.names or ():
        if name not in _CUSTOMER_FACTS:
            customers[name] = 0
    entities = arrays.entities.copy()
    for name in entities.dtype.names or ():
        if name not in _ENTITY_FACTS:
            entities[name] = 0
    live = arrays.pairs[arrays.pairs[:, 0] != NOTHING]
    live = live[np.argsort(live[:, 0])]
    saved: dict[str, npt.NDArray[Any]] = {name: getattr(arrays, name) for name in _SAVED}
    saved |= {"customers": customers, "entities": entities, "pairs": np.ascontiguousarray(live)}
    saved["heap"] = arrays.heap[: int(arrays.allocator[0])]
    ids = "\0".join([*compact.customers, *(name for slots in compact.entities for name in slots)]).encode()
    body = ids + b"".join(np.ascontiguousarray(array).tobytes() for array in saved.values())
    header = {
        "schema": SCHEMA_HASH,
        "time_zone": state.time_zone,
        "customers": len(compact.customers),
        "entities": [len(slots) for slots in compact.entities],
        "ids": len(ids),
        "arrays": [[name, array.shape] for name, array in saved.items()],
    }
    text = json.dumps(header, sort_keys=True).encode()
    content = len(text).to_bytes(8, "little") + text + body
    return MAGIC + hashlib.sha256(content).digest() + content


def restored(snapshot: bytes) -> FeatureState:
    """The state that `snapshotted` saved; StateError where the bytes are not whole or not of this schema."""
    from fraud_pipeline.domain.feature_state import FeatureState

    header, body = _opened(snapshot)
    templates = empty_arrays(1, 1, 1)
    names = body[: header["ids"]].decode().split("\0") if header["ids"] else []
    at, loaded = header["ids"], {}
    for name, shape in header["arrays"]:
        dtype = getattr(templates, name).dtype
        size = int(np.prod(shape)) * dtype.itemsize
        loaded[name] = np.frombuffer(body[at : at + size], dtype).reshape(shape).copy()
        at += size
    loaded["entities"]["at_hour"] = NEVER
    loaded["customers"]["habit_day"] = NEVER
    live = loaded.pop("pairs")
    scratch = np.zeros((len(loaded["entities"]), 3), np.int64)
    arrays = FeatureArrays(**loaded, pairs=blank_pairs(64), scratch=scratch)
    arrays = _with_pairs(arrays, live[:, 0].copy(), live[:, 1].copy())
    _derive_all(arrays, header["customers"])
    customers = {name: i for i, name in enumerate(names[: header["customers"]])}
    entities, slot = [], 0
    for count in header["entities"]:
        first = header["customers"] + slot
        entities.append({name: slot + i for i, name in enumerate(names[first : first + count])})
        slot += count
    return FeatureState(arrays, customers, tuple(entities), header["time_zone"])


def _opened(snapshot: bytes) -> tuple[dict[str, Any], bytes]:
    remedy = "Take an older checkpoint, or rebuild the state by replaying its log."
    if not snapshot.startswith(MAGIC):
        raise StateError("These bytes are not a feature state snapshot.", remedy=remedy)
    digest, content = snapshot[len(MAGIC) : len(MAGIC) + 32], snapshot[len(MAGIC) + 32 :]
    if hashlib.sha256(content).digest() != digest:
        raise StateError(
            "The snapshot is not whole: its SHA-256 differs from the one it was written with.", remedy=remedy
        )
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if header["schema"] != SCHEMA_HASH:
        raise StateError(
            f"The snapshot is of feature schema {header['schema']}, this code computes {SCHEMA_HASH}.",
            remedy="Rebuild the state by replaying its log.",
        )
    return header, content[8 + length :]
