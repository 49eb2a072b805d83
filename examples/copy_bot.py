"""Copy the fills of a hub into a database of one's own: each exactly once, whatever is killed and when.

tradewire-consumer run --config consumer.json --bot examples.copy_bot:CopyBot --data-dir copy-data
"""

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from consumer.stores.sqlalchemy import SqlAlchemyPositionStore
from hub.protocol.localbot import BotContext, Delivery, Lost
from hub.protocol.messages import EntryFill, ExitFill


class Base(DeclarativeBase):
    """The tables of this bot; the store adds its own."""


class Fill(Base):
    __tablename__ = "fills"
    id: Mapped[int] = mapped_column(primary_key=True)
    bot: Mapped[str]
    side: Mapped[str]
    pair: Mapped[str]
    amount: Mapped[float | None]


class Missed(Base):
    __tablename__ = "missed"
    id: Mapped[int] = mapped_column(primary_key=True)
    producer: Mapped[str]
    first: Mapped[int | None]
    last: Mapped[int | None]
    reason: Mapped[str]


class CopyBot:
    async def start(self, context: BotContext) -> SqlAlchemyPositionStore:
        url = context.config.get("db_url", f"sqlite:///{context.data_dir / 'copy.sqlite'}")
        self.engine = create_engine(url)
        Base.metadata.create_all(self.engine)
        self.store = SqlAlchemyPositionStore(self.engine, Base.metadata)
        return self.store

    def handle(self, delivery: Delivery) -> None:
        with Session(self.engine) as session, session.begin():
            match delivery.message:
                case EntryFill() | ExitFill() as fill:
                    side = "entry" if isinstance(fill, EntryFill) else "exit"
                    session.add(Fill(bot=delivery.bot, side=side, pair=fill.pair, amount=fill.amount))
                case Lost(producer=name, first=first, last=last, reason=reason):
                    session.add(Missed(producer=name, first=first, last=last, reason=reason))
            self.store.save(session, delivery)

    async def stop(self) -> None:
        self.engine.dispose()
