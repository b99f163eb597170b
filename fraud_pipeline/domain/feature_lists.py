"""Lists of int64 words on one heap, and the hash table of pairs: the memory of the feature kernels.

No feature arithmetic in here. A caller makes sure that the heap has room (`room_needed`) before it changes anything.
"""

from __future__ import annotations

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

import fraud_pipeline.domain.kernel_cache  # noqa: F401  # sets numba's cache folder before the decorators run
from fraud_pipeline.domain.feature_layout import LARGEST_BLOCK, NOTHING, SMALLEST_BLOCK, FeatureArrays

entry_point = numba.njit(cache=True, nogil=True, error_model="numpy")
compiled = numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
"""Inner functions are inlined whole: handing nine arrays to each call costs more than what most of them compute
(14,000 instructions an event before, under 1,000 after)."""


@intrinsic
def unowned(_typing_context, array):
    """The same array without its reference count: the caller of the entry point holds it, so nobody need count."""

    def codegen(context, builder, signature, args):
        view = make_array(signature.args[0])(context, builder, args[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        view.parent = cgutils.get_null_value(view.parent.type)
        return view._getvalue()

    return array(array), codegen


@intrinsic
def prefetch(_typing_context, array, index, byte):  # noqa: ARG001  # numba hands `byte` to the code generator
    """Ask the processor for the cache line that holds this byte of this row; changes nothing."""

    def codegen(context, builder, signature, args):
        layout = signature.args[0]
        view = make_array(layout)(context, builder, args[0])
        zero = context.get_constant(types.intp, 0)
        where = [context.cast(builder, args[1], signature.args[1], types.intp)] + [zero] * (layout.ndim - 1)
        row = cgutils.get_item_pointer(context, builder, layout, view, where, wraparound=False)
        at = builder.gep(builder.bitcast(row, cgutils.voidptr_t), [args[2]])
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, word, word, word])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(call, [at, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, index, types.intp), codegen


@compiled
def borrowed(state):
    """The state for use inside one entry point, free of reference counting."""
    return FeatureArrays(
        unowned(state.heap),
        unowned(state.allocator),
        unowned(state.clock),
        unowned(state.customers),
        unowned(state.customer_lists),
        unowned(state.entities),
        unowned(state.entity_lists),
        unowned(state.pairs),
        unowned(state.scratch),
    )


@compiled
def block_class(words):
    """K of the smallest block of 2**k words that holds so many."""
    k = 3
    while (1 << k) < words:
        k += 1
    return k


@compiled
def allocate(heap, allocator, words):
    """Offset of a block of `words` (a power of two): a freed one, else from the end."""
    k = block_class(words)
    offset = allocator[1 + k]
    if offset != NOTHING:
        allocator[1 + k] = heap[offset]
        return offset
    offset = allocator[0]
    allocator[0] = offset + words
    allocator[LARGEST_BLOCK] = max(allocator[LARGEST_BLOCK], words)
    return offset


@compiled
def release(heap, allocator, offset, words):
    """Give a block back for reuse."""
    k = block_class(words)
    heap[offset] = allocator[1 + k]
    allocator[1 + k] = offset


@compiled
def room_needed(lists, row, stride):
    """Heap words that up to 17 pushes onto this list may take."""
    words = lists[row, 1]
    if (lists[row, 2] + lists[row, 3] + 17) * stride <= words:
        return 0
    return 2 * words + 256


@compiled
def push(heap, allocator, lists, row, stride):
    """Append an entry; returns where its words begin."""
    offset, words, head, length = lists[row, 0], lists[row, 1], lists[row, 2], lists[row, 3]
    if (head + length + 1) * stride > words:
        if words > 0 and 2 * head * stride >= words:
            start = offset + head * stride
            for i in range(length * stride):
                heap[offset + i] = heap[start + i]
        else:
            larger = max(2 * words, SMALLEST_BLOCK)
            while (length + 1) * stride > larger:
                larger *= 2
            fresh = allocate(heap, allocator, larger)
            start = offset + head * stride
            for i in range(length * stride):
                heap[fresh + i] = heap[start + i]
            if words > 0:
                release(heap, allocator, offset, words)
            offset = fresh
            lists[row, 0] = fresh
            lists[row, 1] = larger
        head = 0
        lists[row, 2] = 0
    lists[row, 3] = length + 1
    return offset + (head + length) * stride


@compiled
def first_word(lists, row, stride):
    """Where the words of the oldest entry begin."""
    return lists[row, 0] + lists[row, 2] * stride


@compiled
def drop_older(heap, lists, row, stride, limit):
    """Drop entries from the front while their first word is below the limit; returns how many."""
    dropped = 0
    while lists[row, 3] > 0 and heap[first_word(lists, row, stride)] < limit:
        drop_first(lists, row)
        dropped += 1
    return dropped


@compiled
def drop_first(lists, row):
    """Drop the oldest entry."""
    lists[row, 2] += 1
    lists[row, 3] -= 1


@compiled
def pair_home(pairs, key):
    """Where the search for a key begins."""
    mixed = key * -7046029254386353131
    mixed ^= (mixed >> 32) & 0xFFFFFFFF
    return mixed & (pairs.shape[0] - 1)


@compiled
def pair_slot(pairs, key):
    """Where the key is, or where it would go (linear probing; the table is never full)."""
    mask, slot = pairs.shape[0] - 1, pair_home(pairs, key)
    while pairs[slot, 0] != NOTHING and pairs[slot, 0] != key:
        slot = (slot + 1) & mask
    return slot


@entry_point
def copy_pairs_into(old, new, oldest):
    """Copy the pairs whose time is not before `oldest` into an empty table; returns how many."""
    used = 0
    for i in range(old.shape[0]):
        if old[i, 0] != NOTHING and old[i, 1] >= oldest:
            slot = pair_slot(new, old[i, 0])
            new[slot, 0] = old[i, 0]
            new[slot, 1] = old[i, 1]
            used += 1
    return used
