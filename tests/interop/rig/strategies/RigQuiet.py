"""A strategy without a signal: what trades there are, a test made."""

import pandas as pd
from freqtrade.strategy import IStrategy


class RigQuiet(IStrategy):
    INTERFACE_VERSION = 3
    timeframe = "1m"
    can_short = False
    minimal_roi = {"0": 10}
    stoploss = -0.30
    process_only_new_candles = True
    startup_candle_count = 30
    plot_config = {"main_plot": {"sma20": {"color": "blue"}}}

    def order_filled(self, pair, trade, order, current_time, **kwargs):
        trade.set_custom_data("filled", {"side": order.ft_order_side})

    def populate_indicators(self, df: pd.DataFrame, metadata: dict) -> pd.DataFrame:
        df["sma20"] = df["close"].rolling(20).mean()
        return df

    def populate_entry_trend(self, df: pd.DataFrame, metadata: dict) -> pd.DataFrame:
        return df

    def populate_exit_trend(self, df: pd.DataFrame, metadata: dict) -> pd.DataFrame:
        return df
