"""What a crash test knows at its end, and the promise that it checks: acknowledged ⊆ delivered ∪ named as lost, each effect once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .parties import Consumer, Effect, Hub, Loss, Publisher
from .reading import Ledger

__all__ = ["Account", "Fill", "Place", "acknowledgements", "check", "unaccounted"]

HUB_RSS_BYTES = 400 << 20

Fill = tuple[str, int]
"""A bot and the number of its fill."""
Place = tuple[str, int]
"""An epoch and an offset."""


@dataclass(frozen=True)
class Account:
    """The counts of one consumer."""

    consumer: str
    acknowledged: int
    delivered: int
    unique: int
    named_lost: int
    losses: tuple[Loss, ...]

    def __str__(self) -> str:
        lost = "; ".join(f"{loss.first}..{loss.last} {loss.reason}" for loss in self.losses)
        return (
            f"{self.consumer}: acknowledged {self.acknowledged}, delivered {self.delivered}, unique {self.unique}, "
            f"named as lost {self.named_lost}" + (f" ({lost})" if lost else "")
        )


def acknowledgements(publishers: Iterable[Publisher]) -> dict[Fill, Place]:
    """Every fill that was acknowledged, and where it was said to be first."""
    return {(p.bot, n): place for p in publishers for n, place in p.acknowledged().items()}


def unaccounted(consumer: Consumer, publishers: Iterable[Publisher]) -> dict[Fill, Place]:
    """What was acknowledged, and neither acted on nor named as lost."""
    done = {(effect.bot, effect.n) for effect in consumer.effects()}
    losses = consumer.losses()
    return {
        fill: place
        for fill, place in acknowledgements(publishers).items()
        if fill not in done and not _named(place, losses)
    }


def _named(place: Place, losses: Sequence[Loss]) -> bool:
    """Whether a loss that was told covers this place. One without numbers covers all that its consumer has not got by then."""
    return any(
        loss.first is None or loss.last is None or loss.first <= place[1] <= loss.last for loss in losses
    )


def check(
    hub: Hub, publishers: Sequence[Publisher], consumers: Iterable[Consumer], ledger: Ledger
) -> list[Account]:
    """Check every consumer and the ledger against what the publishers were told; print the counts and return them."""
    acknowledged = acknowledgements(publishers)
    accounts = [_check_one(consumer, publishers, acknowledged) for consumer in consumers]
    _check_ledger(ledger, acknowledged)
    parties = (hub, *publishers, *consumers)
    kills = ", ".join(f"{party.name} {party.kills}" for party in parties if party.kills)
    print(f"kills: {kills or 'none'}; hub's memory at most {hub.peak_rss >> 20} MiB")
    print(f"a cold client from the earliest: {len(ledger.fills)} fills, {len(ledger.gone)} named as lost")
    for account in accounts:
        print(account)
    assert hub.peak_rss < HUB_RSS_BYTES, f"the hub took {hub.peak_rss >> 20} MiB"
    return accounts


def _check_one(
    consumer: Consumer, publishers: Sequence[Publisher], acknowledged: Mapping[Fill, Place]
) -> Account:
    effects = consumer.effects()
    times = Counter((effect.bot, effect.n) for effect in effects)
    twice = {fill: count for fill, count in times.items() if count > 1}
    assert not twice, (
        f"{consumer.name} acted more than once: {sorted(twice.items())[:10]} ({len(twice)} in all)"
    )
    untold = unaccounted(consumer, publishers)
    assert not untold, (
        f"{consumer.name} was never told of {sorted(untold.items())[:10]} ({len(untold)} in all)"
    )
    _check_order(consumer, effects, acknowledged)
    return Account(
        consumer=consumer.name,
        acknowledged=len(acknowledged),
        delivered=len(effects),
        unique=len(times),
        named_lost=len(set(acknowledged) - set(times)),
        losses=tuple(consumer.losses()),
    )


def _check_order(consumer: Consumer, effects: Sequence[Effect], acknowledged: Mapping[Fill, Place]) -> None:
    """Effects come in the order of the ledger, and of each bot in the order in which it published."""
    offsets: dict[str, int] = {}
    numbers: dict[str, int] = {}
    for effect in effects:
        assert effect.offset > offsets.get(effect.epoch, 0), f"{consumer.name}: {effect} came after {offsets}"
        assert effect.n > numbers.get(effect.bot, 0), f"{consumer.name}: {effect} came after {numbers}"
        offsets[effect.epoch], numbers[effect.bot] = effect.offset, effect.n
        epoch, offset = acknowledged.get((effect.bot, effect.n), (effect.epoch, effect.offset))
        assert epoch != effect.epoch or offset == effect.offset, f"{effect} was acknowledged at {offset}"


def _check_ledger(ledger: Ledger, acknowledged: Mapping[Fill, Place]) -> None:
    """Of its own epoch the ledger has everything that was acknowledged, where it was said to be."""
    times = Counter(ledger.fills.values())
    twice = [fill for fill, count in times.items() if count > 1]
    assert not twice, f"stored more than once: {twice[:10]}"
    for fill, (epoch, offset) in acknowledged.items():
        if epoch == ledger.epoch and offset > ledger.floor and offset not in ledger.gone:
            assert ledger.fills.get(offset) == fill, f"{fill} was acknowledged at {offset}"
