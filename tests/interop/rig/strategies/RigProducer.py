"""Producer strategy of the interop rig: a signal on every candle, so that nothing has to be waited for.

Per pair, by the minute of the candle: BTC/USDT enters on even and exits on odd ones, ETH/USDT the other way round,
SOL/USDT enters 10% under the market (entry, then entry_cancel after a minute), XRP/USDT only has indicators.
A CooldownPeriod protection and dp.send_msg give protection_trigger and strategy_msg.
"""

import numpy as np
import pandas as pd
from freqtrade.strategy import IStrategy


class RigProducer(IStrategy):
    INTERFACE_VERSION = 3
    timeframe = "1m"
    can_short = False
    minimal_roi = {"0": 10}
    stoploss = -0.30
    process_only_new_candles = True
    use_exit_signal = True
    startup_candle_count = 30
    order_types = {"entry": "limit", "exit": "limit", "stoploss": "market", "stoploss_on_exchange": False}
    enter_on = {"BTC/USDT": 0, "ETH/USDT": 1, "SOL/USDT": 0}

    @property
    def protections(self):
        return [{"method": "CooldownPeriod", "stop_duration_candles": 1}]

    def populate_indicators(self, df: pd.DataFrame, metadata: dict) -> pd.DataFrame:
        df["sma20"] = df["close"].rolling(20).mean()
        df["sma200"] = df["close"].rolling(200).mean()
        moves = df["close"].diff()
        up, down = moves.clip(lower=0).rolling(14).mean(), (-moves.clip(upper=0)).rolling(14).mean()
        df["rsi"] = 100 - 100 / (1 + up / down)
        df["always_nan"] = np.nan
        df["some_inf"] = np.where(df["date"].dt.minute % 10 == 0, np.inf, df["close"])
        df["is_green"] = df["close"] > df["open"]
        if metadata["pair"] == "BTC/USDT":
            self.dp.send_msg(f"RIG candle {df.iloc[-1]['date']} close={df.iloc[-1]['close']}")
        return df

    def populate_entry_trend(self, df: pd.DataFrame, metadata: dict) -> pd.DataFrame:
        parity = self.enter_on.get(metadata["pair"])
        if parity is not None:
            df.loc[df["date"].dt.minute % 2 == parity, ["enter_long", "enter_tag"]] = (1, f"rig_m{parity}")
        return df

    def populate_exit_trend(self, df: pd.DataFrame, metadata: dict) -> pd.DataFrame:
        parity = self.enter_on.get(metadata["pair"])
        if parity is not None:
            df.loc[df["date"].dt.minute % 2 != parity, ["exit_long", "exit_tag"]] = (1, f"rig_x{parity}")
        return df

    def custom_entry_price(self, pair, trade, current_time, proposed_rate, entry_tag, side, **kwargs):
        return proposed_rate * 0.90 if pair == "SOL/USDT" and entry_tag != "force_entry" else proposed_rate
