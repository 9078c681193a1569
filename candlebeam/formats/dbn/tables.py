"""The places of things in Databento's records, and in the tables by which compiled loops read them.

A record is a run of whole 64-bit words, little-endian. The first holds its length in units of four
bytes (8 bits), its type (8), the publisher (16) and the instrument (32); the second is `ts_event`
in ns. What follows depends on the type; the tests hold the places against the library's own.
"""

from __future__ import annotations

#: Why a record is rejected, in the order of the checks; the first failure counts. "symbol": there
#: is no mapping of its instrument for its day, so it belongs to no market.
REASONS = ("symbol", "timestamp", "price", "size", "side", "volume")
SYMBOL, TIMESTAMP, PRICE, SIZE, SIDE, VOLUME = range(len(REASONS))
NO_REASON = -1

# What a record of a type is to the reader.
UNEXPECTED = 0  #: it cannot be in such a file: damage
SKIPPED = 1
TRADE = 2  #: price in the third word, as in trades and the books by price
ORDER = 3  #: price in the fourth word, behind an order id
MAPPING = 4
BAR = 5

# Places of words in a record.
TS_EVENT = 1
TRADE_PRICE, TRADE_SIZE, TRADE_TS_RECV = 2, 3, 4
ORDER_PRICE, ORDER_SIZE, ORDER_TS_RECV = 3, 4, 5
BAR_OPEN, BAR_VOLUME = 2, 6
#: Bits by which action and side are shifted in the word that begins with the size.
TRADE_ACTION_BITS, TRADE_SIDE_BITS = 32, 40
ORDER_ACTION_BITS, ORDER_SIDE_BITS = 48, 56

UNDEFINED_PRICE = 2**63 - 1
#: As int64; the library has it as uint64. No other time that is negative as int64 is one either.
UNDEFINED_TIME = -1
UNDEFINED_SIZE = 2**32 - 1

# Columns of `slots`: an instrument, as one symbol.
NEXT_SLOT = 0  #: the same instrument as another symbol; -1 if there is none
FIRST_INTERVAL, END_INTERVAL = 1, 2
START, END = 3, 4  #: ns: when NUMBER holds; equal before the first look
NUMBER = 5  #: the market's, or one of the two below; before the first look, of the first interval
RECORD_TYPE = 6  #: of the instrument's trades, once one was seen; -1 before. In its first slot.
SLOT_COLUMNS = 8
NOWHERE = -1  #: no mapping
UNWANTED = -2

# Columns of `intervals`: START_TIME and END_TIME in ns, the latter exclusive, and the market.
INTERVAL_COLUMNS = 3

# Columns of `markets`; those that every trade needs come first, as they share a line of the cache.
FROM_TS = 0  #: ms: what is older is left out
LAST_PRICE, LAST_SIDE = 1, 2  #: of the tick test
ROWS = 3  #: in pages
LAST_PAGE = 4
FIRST_PAGE = 5
TAKEN = 6  #: rows that were taken out of the pages
SEEN = 7  #: place in the stream up to which records are known to an earlier run
LATE = 8
FIRST_LATE = 9
REPEATED = 10  #: trades that came again in records of another type
REJECTED = 11  #: the first of the counts by reason
#: Whole lines of the cache.
MARKET_COLUMNS = 24

# Places in `control`.
POS = 0  #: the word where the next record begins; in and out
RECORD = 1  #: records read so far
BASE = 2  #: place of the first word in the stream, in bytes
FREE_PAGE, FREE_PAGES = 3, 4
PAGE_BITS = 5  #: a page holds two to this power rows
BATCH_ROWS = 6  #: a whole number of pages
LAYERS = 7  #: symbols that one instrument has at the same time, at most
FULL = 8  #: a market whose batch is full, or -1
NOTED = 9  #: rows in `noted`
UNMAPPED = 10  #: records rejected for "symbol"
ANY_PRICE = 11  #: whether prices of zero and less are good
CONTROL_SIZE = 12

# Columns of `noted`.
NOTED_NUMBER, NOTED_RECORD, NOTED_REASON, NOTED_POS = range(4)
NOTED_COLUMNS = 4

# What `walk_records` returns.
MORE = 0  #: the record at POS is not whole
FOUND_MAPPING = 1  #: at POS; go on behind it
BATCH_FULL = 2  #: take the rows of the markets that have BATCH_ROWS
POOL_FULL = 3  #: take the rows of some markets
NOTED_FULL = 4
DAMAGED = 5  #: what stands at POS is no record, or none of this file

# Columns of the pool. A trade's size has its side above it, which saves a quarter of the memory.
ROW_TS, ROW_PRICE = 0, 1
ROW_SIZE = 2
ROW_VOLUME = 5
BUY_BITS = 32  #: by which the side is shifted
TRADE_ROW, BAR_ROW = 3, 6
