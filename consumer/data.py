"""What producers sent, as freqtrade's strategies ask for it: get_producer_pairs and get_producer_df."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ProducerData"]


class ProducerData:
    """The newest state of every producer. Readers may be in any thread."""

    def get_producer_pairs(self, producer_name: str = "default") -> list[str]:
        """The producer's whitelist."""
        raise NotImplementedError

    def get_producer_df(
        self,
        pair: str,
        timeframe: str | None = None,
        candle_type: str | None = None,
        producer_name: str = "default",
    ) -> tuple[pd.DataFrame, datetime]:
        """The producer's frame and when it was analyzed."""
        raise NotImplementedError
