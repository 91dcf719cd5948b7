"""Half a year of a shop's invoices (UCI Online Retail, CC BY 4.0): is this item in this customer's basket?

Every line of an invoice is a sample whose answer is yes; beside it is one whose answer is no: an item of one of the
last POPULAR lines of other invoices, so drawn with the popularity that it has at that time. Customers come in bursts,
a basket at a time. The file is looked for below EMBEDDING_PS_DATA.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.problems.stream import InMemory
from ps.arrays import Ints
from ps.nn.batch import FeatureSpec
from worker.data.columns import Columns
from worker.data.errors import MissingDependency
from worker.data.hashing import cross, field_ids
from worker.data.source import Source

FILE = Path("online_retail") / "online_retail_240k.parquet"
POPULAR = 20_000
COLUMNS = ["InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
FEATURES = {
    "customer": "customer",
    "item": "item",
    "previous": "item",
    "country": "customer",
    "hour": "customer",
    "customer_item": "cross",
    "previous_item": "cross",
}
"""The features: each has the table of its ids. `previous` is the item of the line before in the same invoice; it shares
the rows of `item`."""


class Retail:
    """Sales to known customers. Raises MissingDependency where the file or its reader is absent."""

    name = "retail"
    batch = 512
    row_lr = 0.1
    """The best of 0.02, 0.05, 0.1 and 0.2."""

    def __init__(self, lines: int | None = None) -> None:
        """Takes the first `lines` lines of invoices; None takes all."""
        path = Path(os.environ.get("EMBEDDING_PS_DATA", ".")) / FILE
        if not path.exists():
            raise MissingDependency(f"no retail data at {path}: set EMBEDDING_PS_DATA to the folder that has it")
        try:
            import pandas as pd

            table = pd.read_parquet(path, columns=COLUMNS)
        except ImportError as error:  # of what reads Parquet, too
            raise MissingDependency("the retail data needs pyarrow: pip install 'embedding-ps[bench]'") from error
        table = table[table["CustomerID"].notna() & (table["Quantity"] > 0)][:lines]
        codes = {name: pd.factorize(table[name])[0].astype(np.int64) for name in ("StockCode", "InvoiceNo", "Country")}
        self._item_N, self._invoice_N, self._country_N = codes["StockCode"], codes["InvoiceNo"], codes["Country"]
        self._customer_N = table["CustomerID"].to_numpy(np.int64)
        self._hour_N = pd.to_datetime(table["InvoiceDate"], format="%m/%d/%y %H:%M").dt.hour.to_numpy().astype(np.int64)
        self._price_N = np.log1p(np.clip(table["UnitPrice"].to_numpy(np.float64), 0, None))

    def source(self, seed: int) -> Source:
        """Returns the samples, the same for every seed."""
        return self._samples

    def window(self) -> slice:
        """Judges the second half."""
        return slice(len(self._item_N), None)

    @cached_property
    def _samples(self) -> InMemory:
        n = len(self._item_N)
        other_N = self._drawn()
        first_N = np.r_[True, self._invoice_N[1:] != self._invoice_N[:-1]]
        previous_N = np.where(first_N, -1, np.r_[-1, self._item_N[:-1]])
        # yes and no by turns; in a batch they have no order
        item_S = np.stack([self._item_N, other_N], axis=1).reshape(-1)
        customer_S, previous_S, country_S, hour_S = (
            np.repeat(column_N, 2) for column_N in (self._customer_N, previous_N, self._country_N, self._hour_N)
        )
        words = {
            "customer": field_ids("customer", customer_S),
            "item": field_ids("item", item_S),
            "previous": field_ids("item", previous_S),
            "country": field_ids("country", country_S),
            "hour": field_ids("hour", hour_S),
            "customer_item": field_ids("customer_item", cross(customer_S, item_S)),
            "previous_item": field_ids("previous_item", cross(previous_S, item_S)),
        }
        dense_SD = np.stack([np.repeat(first_N, 2), self._prices(item_S)], axis=1).astype(np.float32)
        columns = Columns(
            dense_SD, np.stack([words[name] for name in FEATURES]), np.tile(np.array([1, 0], np.float32), n)
        )
        return InMemory(self.name, [FeatureSpec(name, table) for name, table in FEATURES.items()], columns)

    def _prices(self, item_S: Ints) -> npt.NDArray[np.float64]:
        """Returns what an item cost when it was first sold, scaled to about 1: an attribute of the item, not of the
        line."""
        _, first_I = np.unique(self._item_N, return_index=True)
        prices_S: npt.NDArray[np.float64] = self._price_N[first_I][item_S] - 1.1
        return prices_S

    def _drawn(self) -> Ints:
        """Draws for each line an item that is not in its invoice, from one of the POPULAR lines before the invoice.
        Where five draws are all in the invoice the last one is taken all the same."""
        rng = np.random.default_rng(0)
        begins_N = np.searchsorted(self._begins, np.arange(len(self._item_N)), side="right") - 1
        begin_N = self._begins[begins_N]
        in_invoice = cross(self._invoice_N, self._item_N)
        drawn_N = self._item_N.copy()
        wrong_N = np.ones(len(drawn_N), np.bool_)
        for _ in range(5):
            behind_N = rng.integers(1, POPULAR + 1, len(drawn_N))
            at_N = np.where(begin_N > 0, begin_N - 1 - behind_N % np.maximum(begin_N, 1), behind_N % len(drawn_N))
            drawn_N = np.where(wrong_N, self._item_N[at_N], drawn_N)
            wrong_N = np.isin(cross(self._invoice_N, drawn_N), in_invoice)
        return drawn_N

    @cached_property
    def _begins(self) -> Ints:
        """Returns the lines at which invoices begin."""
        return np.flatnonzero(np.r_[True, self._invoice_N[1:] != self._invoice_N[:-1]])
