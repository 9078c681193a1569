"""Rows of many markets in pages of one pool, compiled.

Batches are of a good size however many markets a file has, and memory does not grow with the file.
"""

from __future__ import annotations

from candlebeam.formats.dbn.tables import (
    BATCH_ROWS,
    BUY_BITS,
    FIRST_PAGE,
    FREE_PAGE,
    FREE_PAGES,
    FULL,
    LAST_PAGE,
    PAGE_BITS,
    ROW_PRICE,
    ROW_SIZE,
    ROW_TS,
    ROWS,
    TAKEN,
    UNDEFINED_SIZE,
)
from candlebeam.kernels import callee, kernel


@callee
def new_row(markets, next_page, control, number):  # type: ignore[no-untyped-def]
    """The place in the pool of a market's next row."""
    rows = markets[number, ROWS]
    in_page = rows & ((1 << control[PAGE_BITS]) - 1)
    page = markets[number, LAST_PAGE]
    if in_page == 0:
        last_page = page
        page = control[FREE_PAGE]
        control[FREE_PAGE] = next_page[page]
        control[FREE_PAGES] -= 1
        if rows == 0:
            markets[number, FIRST_PAGE] = page
        else:
            next_page[last_page] = page
        markets[number, LAST_PAGE] = page
    markets[number, ROWS] = rows + 1
    if rows + 1 == control[BATCH_ROWS]:
        control[FULL] = number
    return (page << control[PAGE_BITS]) + in_page


@callee
def _free_pages(markets, next_page, control, number):  # type: ignore[no-untyped-def]
    """Gives a market's pages back."""
    rows, bits = markets[number, ROWS], control[PAGE_BITS]
    if rows == 0:
        return
    next_page[markets[number, LAST_PAGE]] = control[FREE_PAGE]
    control[FREE_PAGE] = markets[number, FIRST_PAGE]
    control[FREE_PAGES] += (rows + (1 << bits) - 1) >> bits
    markets[number, TAKEN] += rows
    markets[number, ROWS] = 0


@kernel(
    "void(int64[:, ::1], float64[:, ::1], int64[::1], int64[:, ::1], int64[::1], int64,"
    " int64[::1], float64[::1], float64[::1], uint8[::1])"
)
def take_trades(  # type: ignore[no-untyped-def]
    pool, floats, next_page, markets, control, number, ts, price, size, buy
):  # fmt: skip
    """Moves the rows of a market into columns, and frees its pages."""
    rows, bits = markets[number, ROWS], control[PAGE_BITS]
    page = markets[number, FIRST_PAGE]
    done = 0
    while done < rows:
        row = page << bits
        for place in range(min(1 << bits, rows - done)):
            ts[done + place] = pool[row + place, ROW_TS]
            price[done + place] = floats[row + place, ROW_PRICE]
            packed = pool[row + place, ROW_SIZE]
            size[done + place] = packed & UNDEFINED_SIZE
            buy[done + place] = packed >> BUY_BITS
        done += 1 << bits
        page = next_page[page]
    _free_pages(markets, next_page, control, number)


@kernel(
    "void(int64[:, ::1], float64[:, ::1], int64[::1], int64[:, ::1], int64[::1], int64,"
    " int64[::1], float64[:, ::1])"
)
def take_bars(  # type: ignore[no-untyped-def]
    pool, floats, next_page, markets, control, number, ts, columns
):  # fmt: skip
    """Moves the rows of a market into columns, one of `columns` a price and the volume."""
    rows, bits = markets[number, ROWS], control[PAGE_BITS]
    page = markets[number, FIRST_PAGE]
    done = 0
    while done < rows:
        row = page << bits
        for place in range(min(1 << bits, rows - done)):
            ts[done + place] = pool[row + place, ROW_TS]
            for column in range(len(columns)):
                columns[column, done + place] = floats[row + place, ROW_PRICE + column]
        done += 1 << bits
        page = next_page[page]
    _free_pages(markets, next_page, control, number)
