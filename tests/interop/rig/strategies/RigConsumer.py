"""Consumer strategy of the interop rig: its log says what the producer's data looked like when strategy code got it.

Lines start with RIGC and are one JSON object each. It trades on the producer's signals and on nothing else.
"""

import json
import logging
from datetime import datetime, timezone

import pandas as pd
from freqtrade.strategy import IStrategy, merge_informative_pair

logger = logging.getLogger(__name__)


class RigConsumer(IStrategy):
    INTERFACE_VERSION = 3
    timeframe = "1m"
    can_short = False
    minimal_roi = {"0": 10}
    stoploss = -0.30
    process_only_new_candles = False  # freqtrade's documentation asks for it in a consumer
    use_exit_signal = True
    startup_candle_count = 1

    def populate_indicators(self, df: pd.DataFrame, metadata: dict) -> pd.DataFrame:
        pair = metadata["pair"]
        received, analyzed = self.dp.get_producer_df(pair)
        report = {
            "at": datetime.now(timezone.utc).timestamp(),
            "pair": pair,
            "pairs": self.dp.get_producer_pairs(),
            "rows": len(received),
            "la": str(analyzed),
        }
        if not received.empty:
            steps = received["date"].diff().dropna()
            report.update(
                last=str(received.iloc[-1]["date"]),
                dtypes={name: str(dtype) for name, dtype in received.dtypes.items()},
                monotonic=bool(received["date"].is_monotonic_increasing),
                gaps=int((steps != pd.Timedelta("1min")).sum()),
                close=float(received.iloc[-1]["close"]),
            )
            df = merge_informative_pair(
                df, received, self.timeframe, self.timeframe, append_timeframe=False, suffix="producer"
            )
        logger.info("RIGC %s", json.dumps(report))
        return df

    def populate_entry_trend(self, df: pd.DataFrame, metadata: dict) -> pd.DataFrame:
        df.loc[self._signal(df, "enter_long"), ["enter_long", "enter_tag"]] = (1, "from_producer")
        return df

    def populate_exit_trend(self, df: pd.DataFrame, metadata: dict) -> pd.DataFrame:
        df.loc[self._signal(df, "exit_long"), ["exit_long", "exit_tag"]] = (1, "from_producer")
        return df

    def _signal(self, df: pd.DataFrame, column: str) -> pd.Series:
        name = f"{column}_producer"
        return df[name] == 1 if name in df.columns else pd.Series(False, index=df.index)
