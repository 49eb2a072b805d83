"""Position stores: where a local bot keeps, in its own database, what it has acted on, so that each message acts once.

A bot makes one, returns it from `start`, and saves every delivery in the transaction of its effect. A rolled-back effect takes the
position with it, a committed one commits it: there is no moment at which a crash leaves one without the other.

- `consumer.stores.sqlite.SqlitePositionStore`: for a bot that uses `sqlite3` itself; `store.save(delivery)`.
- `consumer.stores.sqlalchemy.SqlAlchemyPositionStore`: for a bot with a Session; `store.save(session, delivery)`.
"""
