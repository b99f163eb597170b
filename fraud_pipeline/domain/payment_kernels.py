"""Payments read from the bytes of their JSON, by compiled code: what `parse_transaction` says of those that are plainly valid.

A body is *plain* when it is one flat object in printable ASCII without escapes, each field of the contract at most once and
nothing else in it, and every value is plainly in its range. All others are left for the closer look, so the rules stand in
one place and a test holds this to it. Knows nothing of records, keys or topics. One file, since numba looks only at the one
that holds the entry point when it takes compiled code from its cache.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from fraud_pipeline.domain.feature_lists import compiled, entry_point
from fraud_pipeline.domain.transaction import CHANNELS

FIELDS: Final = (
    "transaction_id", "customer_id", "merchant_id", "merchant_category", "channel", "country", "device_id",
    "currency", "event_time", "amount", "latitude", "longitude",
)  # fmt: skip
"""Of these the first seven have a column of texts, in this order."""
IDENTITY, CUSTOMER, MERCHANT, CATEGORY, CHANNEL, COUNTRY, DEVICE, CURRENCY, TIME, AMOUNT, LATITUDE, LONGITUDE = range(
    len(FIELDS)
)
TEXTS: Final = DEVICE + 1
ABSENT: Final = -1
LONGEST_CONTENT: Final = 512
"""Bytes of the text that a content's hash is made of: all fields at their longest take 330."""
_LONGEST_NAME: Final = max(map(len, FIELDS))
_NAMES: Final = np.array([list(name.encode().ljust(_LONGEST_NAME)) for name in FIELDS], np.uint8)
_NAME_LENGTHS: Final = np.array([len(name) for name in FIELDS])
_LONGEST_TEXTS: Final = np.array([64, 64, 64, 32, 8, 2, 64, 3, 40])
_CHANNEL_LENGTHS: Final = np.array([len(name) for name in CHANNELS])
_CHANNELS: Final = np.array([list(name.encode().ljust(8)) for name in CHANNELS], np.uint8)
_UNKNOWN: Final = np.frombuffer(b"unknown", np.uint8)
_NONE: Final = np.frombuffer(b"None", np.uint8)
_NO_ATTRIBUTES: Final = np.frombuffer(b"''", np.uint8)
_NULL: Final = np.frombuffer(b"null", np.uint8)
_MONTH_DAYS: Final = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_TENS: Final = np.array([10.0**power for power in range(16)])
_ALLOWED_IN_IDS: Final = np.array([chr(code).isalnum() or chr(code) in "._:-" for code in range(128)])
_MAX_MINOR: Final = 10_000_000_00
_FIRST_US: Final = 365 * 86_400 * 1_000_000
_END_US: Final = 83_600 * 86_400 * 1_000_000
"""1971 and late 2198: in the years at either end of what is allowed, the closer look decides."""
_MAX_FUTURE_US: Final = 5 * 60 * 1_000_000
_MAX_AGE_US: Final = 90 * 86_400 * 1_000_000

_IV: Final = np.array(
    [
        0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
        0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
    ], np.uint64,
)  # fmt: skip
_SIGMA: Final = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4], [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13], [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11], [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5], [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
    ]
)  # fmt: skip
_EIGHT_BYTES: Final = np.uint64(0x01010008)
"""The parameters of a digest of 8 bytes without a key (RFC 7693)."""


@compiled
def turned(x, by):
    """The word rotated right."""
    return (x >> np.uint64(by)) | (x << np.uint64(64 - by))


@compiled
def mixed(a, b, c, d, x, y):
    """RFC 7693's mixing function G."""
    a = a + b + x
    d = turned(d ^ a, 32)
    c = c + d
    b = turned(b ^ c, 24)
    a = a + b + y
    d = turned(d ^ a, 16)
    c = c + d
    b = turned(b ^ c, 63)
    return a, b, c, d


@entry_point
def hashed(words, length, h):
    """BLAKE2b with 8 bytes of digest, of the first `length` bytes of these words; what lies behind them is zero. `h` is scratch."""
    for i in range(8):
        h[i] = _IV[i]
    h[0] ^= _EIGHT_BYTES
    blocks = max(1, (length + 127) // 128)
    for block in range(blocks):
        m = words[16 * block : 16 * block + 16]
        last = block == blocks - 1
        v0, v1, v2, v3, v4, v5, v6, v7 = h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]
        v8, v9, v10, v11, v13, v15 = _IV[0], _IV[1], _IV[2], _IV[3], _IV[5], _IV[7]
        v12 = _IV[4] ^ np.uint64(length if last else 128 * (block + 1))
        v14 = ~_IV[6] if last else _IV[6]
        for turn in range(12):
            s = _SIGMA[turn % 10]
            v0, v4, v8, v12 = mixed(v0, v4, v8, v12, m[s[0]], m[s[1]])
            v1, v5, v9, v13 = mixed(v1, v5, v9, v13, m[s[2]], m[s[3]])
            v2, v6, v10, v14 = mixed(v2, v6, v10, v14, m[s[4]], m[s[5]])
            v3, v7, v11, v15 = mixed(v3, v7, v11, v15, m[s[6]], m[s[7]])
            v0, v5, v10, v15 = mixed(v0, v5, v10, v15, m[s[8]], m[s[9]])
            v1, v6, v11, v12 = mixed(v1, v6, v11, v12, m[s[10]], m[s[11]])
            v2, v7, v8, v13 = mixed(v2, v7, v8, v13, m[s[12]], m[s[13]])
            v3, v4, v9, v14 = mixed(v3, v4, v9, v14, m[s[14]], m[s[15]])
        h[0] ^= v0 ^ v8
        h[1] ^= v1 ^ v9
        h[2] ^= v2 ^ v10
        h[3] ^= v3 ^ v11
        h[4] ^= v4 ^ v12
        h[5] ^= v5 ^ v13
        h[6] ^= v6 ^ v14
        h[7] ^= v7 ^ v15
    return np.int64(h[0])


@entry_point
def put(out, at, text, start, length):
    """Append bytes and the zero that parts two fields; returns where the next one goes."""
    for i in range(length):
        out[at + i] = text[start + i]
    out[at + length] = 0
    return at + length + 1


@entry_point
def put_number(out, at, number):
    """Append a number that is not negative, in digits."""
    digits, rest = 1, number // 10
    while rest > 0:
        digits += 1
        rest //= 10
    for place in range(digits - 1, -1, -1):
        out[at + place] = 48 + number % 10
        number //= 10
    out[at + digits] = 0
    return at + digits + 1


@entry_point
def same(text, start, other, length):
    """Whether these bytes are the other's first."""
    for i in range(length):  # noqa: SIM110 numba compiles no generators of `all`
        if text[start + i] != other[i]:
            return False
    return True


@entry_point
def past_spaces(text, at, end):
    """The next place that holds no space."""
    while at < end and text[at] == 32:
        at += 1
    return at


@entry_point
def text_end(text, at, end):
    """Where a text of printable ASCII without escapes ends, that begins at `at`; -1 where it is another."""
    while at < end:
        code = text[at]
        if code == 34:
            return at
        if code < 32 or code > 126 or code == 92:
            return -1
        at += 1
    return -1


@entry_point
def field_named(text, start, length):
    """Which field has this name; -1 for none."""
    for field in range(_NAME_LENGTHS.shape[0]):
        if _NAME_LENGTHS[field] == length and same(text, start, _NAMES[field], length):
            return field
    return -1


@entry_point
def number_at(text, at, end):
    """(where it ends, its digits as one number, how many digits, how many after the point); -1 where it is no plain one."""
    start, digits, after, value = at, 0, 0, 0
    while at < end and 48 <= text[at] <= 57:
        value = value * 10 + (text[at] - 48)
        at += 1
        digits += 1
        if digits > 15:
            return -1, 0, 0, 0
    if digits == 0 or (digits > 1 and text[start] == 48):
        return -1, 0, 0, 0
    if at < end and text[at] == 46:
        at += 1
        while at < end and 48 <= text[at] <= 57:
            value = value * 10 + (text[at] - 48)
            at += 1
            after += 1
            if digits + after > 15:
                return -1, 0, 0, 0
        if after == 0:
            return -1, 0, 0, 0
    return at, value, digits + after, after


@entry_point
def two_digits(text, at):
    """A number of two digits; -1 where it is none."""
    tens, ones = text[at] - 48, text[at + 1] - 48
    return tens * 10 + ones if 0 <= tens <= 9 and 0 <= ones <= 9 else -1


@entry_point
def time_at(text, start, length):
    """µs since 1970 of an RFC 3339 time; -1 where it is not plainly one."""
    if (
        length < 20
        or text[start + 4] != 45
        or text[start + 7] != 45
        or text[start + 13] != 58
        or text[start + 16] != 58
    ):
        return -1
    if text[start + 10] != 84 and text[start + 10] != 32:
        return -1
    century, year = two_digits(text, start), two_digits(text, start + 2)
    month, day = two_digits(text, start + 5), two_digits(text, start + 8)
    hour, minute, second = two_digits(text, start + 11), two_digits(text, start + 14), two_digits(text, start + 17)
    if min(century, year, month, day, hour, minute, second) < 0 or hour > 23 or minute > 59 or second > 59:
        return -1
    year += 100 * century
    leap = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
    if not 1 <= month <= 12 or not 1 <= day <= _MONTH_DAYS[month - 1] + (leap and month == 2) or year < 1970:
        return -1
    days = 365 * (year - 1970) + (year - 1969) // 4 - (year - 1901) // 100 + (year - 1601) // 400 + day - 1
    for each in range(month - 1):
        days += _MONTH_DAYS[each]
    days += leap and month > 2
    at, end, micros, scale = start + 19, start + length, 0, 100_000
    if text[at] == 46:
        at += 1
        first = at
        while at < end and 48 <= text[at] <= 57:
            micros += (text[at] - 48) * scale  # what is finer than a microsecond is cut off
            scale //= 10
            at += 1
        if not 1 <= at - first <= 9:
            return -1
    shift = 0
    if end - at == 6 and (text[at] == 43 or text[at] == 45) and text[at + 3] == 58:
        hours, minutes = two_digits(text, at + 1), two_digits(text, at + 4)
        if not 0 <= hours <= 23 or not 0 <= minutes <= 59:
            return -1
        shift = (hours * 60 + minutes) * (1 if text[at] == 43 else -1)
    elif end - at != 1 or text[at] != 90:
        return -1
    return ((days * 24 + hour) * 60 + minute - shift) * 60_000_000 + second * 1_000_000 + micros


@entry_point
def degrees_at(text, at, end, limit, values, found, signs):
    """A decimal fraction of degrees into `values` (its digits, how many after the point) and `found`; where it ends, or -1."""
    negative = text[at] == 45
    at, value, digits, after = number_at(text, at + negative, end)
    if at < 0 or after == 0 or digits > 15:
        return -1
    while after > 1 and value % 10 == 0:  # as Python writes it
        value //= 10
        after -= 1
    degrees = value / _TENS[after]
    if degrees > limit or degrees < 0.001:  # Python writes the smallest with an exponent
        return -1
    values[0], values[1], signs[0] = value, after, negative
    found[0] = -degrees if negative else degrees
    return at


@entry_point
def put_degrees(out, at, values, negative):
    """Append a decimal fraction as Python writes it."""
    if negative:
        out[at] = 45
        at += 1
    scale = 1
    for _ in range(values[1]):
        scale *= 10
    at = put_number(out, at, values[0] // scale)
    out[at - 1] = 46
    fraction = values[0] % scale
    for place in range(values[1] - 1, -1, -1):
        out[at + place] = 48 + fraction % 10
        fraction //= 10
    out[at + values[1]] = 0
    return at + values[1] + 1


@entry_point
def scanned(text, at, end, spans, numbers):
    """Read one flat object at [at, end): where each field's text stands, and its numbers; whether it is plainly one.

    `spans` [fields, 2] get (start, length), ABSENT for none; `numbers` [fields] where a number begins.
    """
    seen = 0
    spans[:, 0] = ABSENT
    numbers[:] = ABSENT
    if at >= end or text[at] != 123:
        return False
    at = past_spaces(text, at + 1, end)
    while True:
        if at >= end or text[at] != 34:
            return False
        close = text_end(text, at + 1, end)
        if close < 0:
            return False
        field = field_named(text, at + 1, close - at - 1)
        if field < 0 or seen & (1 << field) or close + 2 >= end or text[close + 1] != 58:
            return False
        seen |= 1 << field
        at = past_spaces(text, close + 2, end)
        if at + 4 > end:
            return False
        if text[at] == 34 and field < AMOUNT:
            close = text_end(text, at + 1, end)
            if close < 0 or close == at + 1 or close - at - 1 > _LONGEST_TEXTS[field]:
                return False
            spans[field, 0], spans[field, 1] = at + 1, close - at - 1
            at = close + 1
        elif same(text, at, _NULL, 4) and field >= CATEGORY and field not in (TIME, AMOUNT):
            at += 4
        elif field >= AMOUNT and (text[at] == 45 or 48 <= text[at] <= 57):
            numbers[field] = at
            while at < end and text[at] != 44 and text[at] != 125 and text[at] != 32:
                at += 1
        else:
            return False
        at = past_spaces(text, at, end)
        if at >= end:
            return False
        if text[at] == 125:
            return at + 1 == end
        if text[at] != 44:
            return False
        at = past_spaces(text, at + 1, end)


@entry_point
def number_ends(text, at, end):
    """Whether a number ends here, as it does in an object."""
    return 0 <= at < end and (text[at] == 44 or text[at] == 125 or text[at] == 32)


@entry_point
def is_channel(text, start, length):
    """Whether it is one that the contract names."""
    for channel in range(_CHANNELS.shape[0]):
        if length == _CHANNEL_LENGTHS[channel] and same(text, start, _CHANNELS[channel], length):
            return True
    return False


@entry_point
def are_in_range(text, spans, currency, countries):
    """Whether the texts that are no free ones are among those allowed."""
    for place in range(spans[IDENTITY, 0], spans[IDENTITY, 0] + spans[IDENTITY, 1]):
        if not _ALLOWED_IN_IDS[text[place]]:
            return False
    start, length = spans[CURRENCY, 0], spans[CURRENCY, 1]
    if start != ABSENT and (length != currency.shape[0] or not same(text, start, currency, length)):
        return False
    if spans[CHANNEL, 0] != ABSENT and not is_channel(text, spans[CHANNEL, 0], spans[CHANNEL, 1]):
        return False
    start = spans[COUNTRY, 0]
    if start != ABSENT:
        first, second = text[start] - 65, text[start + 1] - 65
        if spans[COUNTRY, 1] != 2 or not 0 <= first < 26 or not 0 <= second < 26 or not countries[first, second]:
            return False
    return True


@entry_point
def put_text(out, at, text, spans, field, instead):
    """Append a field's text, or what stands for one that is absent."""
    if spans[field, 0] == ABSENT:
        return put(out, at, instead, 0, instead.shape[0])
    return put(out, at, text, spans[field, 0], spans[field, 1])


@entry_point
def place_of(text, end, numbers, values, found, signs):
    """Latitude and longitude into `found`, both or neither; whether they are plainly that."""
    found[:] = np.nan
    if numbers[LATITUDE] == ABSENT and numbers[LONGITUDE] == ABSENT:
        return True
    if numbers[LATITUDE] == ABSENT or numbers[LONGITUDE] == ABSENT:
        return False
    stop = degrees_at(text, numbers[LATITUDE], end, 90.0, values[0], found[0:1], signs[0:1])
    if not number_ends(text, stop, end):
        return False
    stop = degrees_at(text, numbers[LONGITUDE], end, 180.0, values[1], found[1:2], signs[1:2])
    return number_ends(text, stop, end)


@entry_point
def minor_at(text, at, end):
    """An amount in hundredths; -1 where it is not plainly one."""
    stop, value, digits, after = number_at(text, at, end)
    if not number_ends(text, stop, end) or after > 2 or digits > 12:
        return -1
    minor = value * (100 if after == 0 else 10 if after == 1 else 1)
    return minor if minor <= _MAX_MINOR else -1


@entry_point
def read_payments(text, starts, keys, received, currency, countries, plain, times, amounts, places, spans, hashes):
    """Read n bodies that stand one after the other in `text`, body i at [starts[i], starts[i + 1]).

    `keys` are the records' keys, laid out likewise (their text, their starts); `received` µs. Fills `plain` [n]; and where that
    is true, times (µs), amounts (hundredths), places [n, 2] (degrees, NaN for none), `spans` [n, TEXTS, 2] (start, length;
    ABSENT) and `hashes` [n, 2] of id and content.
    """
    key_text, key_starts = keys
    words = np.zeros(LONGEST_CONTENT // 8, np.uint64)
    out, h = words.view(np.uint8), np.zeros(8, np.uint64)
    found_spans, numbers = np.empty((len(_NAME_LENGTHS), 2), np.int64), np.empty(len(_NAME_LENGTHS), np.int64)
    values, found, signs = np.zeros((2, 2), np.int64), np.empty(2), np.zeros(2, np.bool_)
    for row in range(plain.shape[0]):
        plain[row] = False
        at, end = starts[row], starts[row + 1]
        if not scanned(text, at, end, found_spans, numbers) or numbers[AMOUNT] == ABSENT:
            continue
        if min(found_spans[IDENTITY, 0], found_spans[CUSTOMER, 0], found_spans[MERCHANT, 0], found_spans[TIME, 0]) < 0:
            continue
        start, length = found_spans[CUSTOMER, 0], found_spans[CUSTOMER, 1]
        if key_starts[row + 1] - key_starts[row] != length or not same(
            text, start, key_text[key_starts[row] :], length
        ):
            continue
        time = time_at(text, found_spans[TIME, 0], found_spans[TIME, 1])
        if not _FIRST_US <= time < _END_US or not received[row] - _MAX_AGE_US <= time <= received[row] + _MAX_FUTURE_US:
            continue
        minor = minor_at(text, numbers[AMOUNT], end)
        if minor < 0 or not are_in_range(text, found_spans, currency, countries):
            continue
        if not place_of(text, end, numbers, values, found, signs):
            continue
        plain[row] = True
        times[row], amounts[row], places[row, 0], places[row, 1] = time, minor, found[0], found[1]
        spans[row] = found_spans[:TEXTS]
        length = put(out, 0, text, found_spans[IDENTITY, 0], found_spans[IDENTITY, 1]) - 1
        hashes[row, 0] = hashed(words, length, h)
        out[:length] = 0
        length = put_number(out, 0, time)
        length = put_text(out, length, text, found_spans, CUSTOMER, _NONE)
        length = put_text(out, length, text, found_spans, MERCHANT, _NONE)
        length = put_number(out, length, minor)
        length = put(out, length, currency, 0, currency.shape[0])
        length = put_text(out, length, text, found_spans, CATEGORY, _UNKNOWN)
        length = put_text(out, length, text, found_spans, CHANNEL, _UNKNOWN)
        length = put_text(out, length, text, found_spans, COUNTRY, _NONE)
        length = put_text(out, length, text, found_spans, DEVICE, _NONE)
        for each in range(2):
            placed = not np.isnan(found[each])
            length = put_degrees(out, length, values[each], signs[each]) if placed else put(out, length, _NONE, 0, 4)
        length = put(out, length, _NO_ATTRIBUTES, 0, 2) - 1
        hashes[row, 1] = hashed(words, length, h)
        out[:length] = 0


@entry_point
def coded(text, spans, rows, codes, firsts, table):
    """Give equal texts of one field equal codes: spans [n, 2] of the rows where `rows` is true.

    Fills `codes` [n] (ABSENT for none) and `firsts` [n], the row that a code was first met at; returns how many there are.
    `table` has a power of two of places, at least twice as many as rows.
    """
    table[:] = ABSENT
    count, mask = 0, table.shape[0] - 1
    for row in range(spans.shape[0]):
        codes[row] = ABSENT
        if not rows[row] or spans[row, 0] == ABSENT:
            continue
        start, length = spans[row, 0], spans[row, 1]
        key = 1_469_598_103_934_665_603
        for place in range(start, start + length):
            key = (key ^ text[place]) * 1_099_511_628_211
        at = (key ^ (key >> 29)) & mask
        while table[at] != ABSENT:
            first = firsts[table[at]]
            if spans[first, 1] == length and same(text, start, text[spans[first, 0] :], length):
                break
            at = (at + 1) & mask
        if table[at] == ABSENT:
            table[at], firsts[count] = count, row
            count += 1
        codes[row] = table[at]
    return count
