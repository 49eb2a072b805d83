"""The documents against the code: every table that lists something lists just that, and what is shown runs."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import json5
import msgspec
import pytest
import typer

import consumer.__main__
import consumer.config
import hub.__main__
import hub.config
from consumer.bot import settings as paper
from consumer.config import ConsumerConfig, ProducerConfig, PublishConfig
from hub import relay, server
from hub.asgi.connection import MessageEndpoint
from hub.asgi.descriptors import Waiting
from hub.asgi.unsent import Unsent
from hub.auth.authenticator import Authenticator
from hub.bots.freqtrade import FreqtradeBot
from hub.bots.ports import InProcess
from hub.bots.registry import BotRegistry
from hub.config import (
    ApiServer,
    BotToken,
    Compression,
    HubSection,
    Ledger,
    Limits,
    Memory,
    PublisherEntry,
    Slow,
    Throttle,
    Upstream,
)
from hub.core.call_requests import CALL_REQUESTS
from hub.core.figures import SessionFigures, TopicFigures
from hub.core.requests import _REQUESTS
from hub.frames.schema import DTYPES
from hub.limits import NodeLimits
from hub.log.sqlite import SqliteLog
from hub.node import VERSION, Node
from hub.protocol import values
from hub.protocol.botapi import BotError
from hub.protocol.close_codes import CloseCode
from hub.protocol.errors import ErrorCode, RequestError
from hub.protocol.localbot import LocalBot
from hub.protocol.messages import REGISTRY
from hub.protocol.subscription import HUB_TOPICS
from hub.reconciler import Reconciler
from hub.rest.bodies import Bodies
from hub.rest.passing import PassThrough
from hub.rest.publish import _STATUS, PublishIntake

ROOT = Path(__file__).resolve().parents[1]
README, CHANGELOG = ROOT / "README.md", ROOT / "CHANGELOG.md"
WIRE, OPERATIONS, ARCHITECTURE = (
    ROOT / "docs" / f"{name}.md" for name in ("wire-protocol", "operations", "architecture")
)
DOCUMENTS = [README, CHANGELOG, *sorted((ROOT / "docs").glob("*.md"))]
SECRETS = {"username": "u", "password": "p" * 40, "jwt_secret_key": "j" * 40}


def tables(path: Path) -> Iterator[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Every table as its header and its rows, cells stripped."""
    rows: list[tuple[str, ...]] = []
    for line in [*path.read_text().splitlines(), ""]:
        if line.startswith("|"):
            rows.append(tuple(cell.strip() for cell in line.strip().strip("|").split("|")))
        elif rows:
            yield rows[0], rows[2:]
            rows = []


def table(path: Path, *header: str) -> list[tuple[str, ...]]:
    """The rows of the one table whose header begins so."""
    found = [rows for names, rows in tables(path) if names[: len(header)] == header]
    assert len(found) == 1, f"{path.name}: expected one table {header}, got {len(found)}"
    return found[0]


def code(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


# --- the wire


def test_the_close_codes() -> None:
    rows = table(WIRE, "code", "name", "action", "when")
    assert rows == [(str(int(c)), c.name, c.action.value, c.when) for c in CloseCode]


def test_every_close_code_has_its_line_in_troubleshooting() -> None:
    told = [int(n) for row in table(OPERATIONS, "code", "meaning", "do") for n in row[0].split(",")]
    assert told == [int(c) for c in CloseCode]


def errors(cls: type[RequestError]) -> Iterator[type[RequestError]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from errors(sub)


def test_the_error_codes() -> None:
    rows = table(WIRE, "code", "temporary", "HTTP", "when")
    told = {code(name)[0]: (temporary, status) for name, temporary, status, _ in rows}
    assert set(told) == set(map(str, ErrorCode))
    temporary = {str(cls.code): "yes" if cls.temporary else "no" for cls in errors(RequestError)}
    assert {name: told[name][0] for name in temporary} == temporary
    assert {name: int(status) for name, (_, status) in told.items() if status} == dict(_STATUS)
    reserved = {code(row[0])[0] for row in rows if row[3] == "reserved"}
    assert reserved == set(told) - set(temporary)


def test_the_topics_and_their_fields() -> None:
    told: dict[str, tuple[str, str]] = {}
    for names, kind, fields in table(WIRE, "topic", "class", "fields of `data`"):
        told |= dict.fromkeys(code(names), (kind, fields))
    assert set(told) == set(REGISTRY)
    for topic, cls in REGISTRY.items():
        kind, fields = told[topic]
        assert kind == cls.delivery.value, topic
        if topic in ("whitelist", "new_candle", "analyzed_df"):
            continue
        real = [f for f in msgspec.structs.fields(cls) if f.name != "extra"]
        assert set(code(fields)) == {f.encode_name for f in real}, topic
        bold = set(re.findall(r"\*\*`([^`]+)`\*\*", fields))
        assert bold == {f.encode_name for f in real if f.required}, topic


def sent_types() -> set[str]:
    """The `hub.…` types in maps that the hub builds, and the broadcasts of its own."""
    found = set(HUB_TOPICS)
    for path in (ROOT / "hub").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Dict):
                found |= {
                    str(value.value)
                    for key, value in zip(node.keys, node.values, strict=True)
                    if isinstance(key, ast.Constant)
                    and key.value == "type"
                    and isinstance(value, ast.Constant)
                }
    return {name for name in found if name.startswith("hub.")}


def test_the_notices() -> None:
    assert {code(row[0])[0] for row in table(WIRE, "type", "kind", "content")} == sent_types()


def test_the_requests() -> None:
    rows = table(WIRE, "request", "data", "reply's data")
    assert [code(row[0])[0] for row in rows] == [*_reordered(_REQUESTS), "auth", "publish", *CALL_REQUESTS]


def _reordered(requests: Mapping[str, Any]) -> list[str]:
    order = ["hello", "subscribe", "unsubscribe", "resync", "keys", "ping"]
    return [name for name in order if name in requests] + [name for name in requests if name not in order]


def test_the_limits_of_the_welcome() -> None:
    assert [code(row[0])[0] for row in table(WIRE, "limit", "meaning")] == list(NodeLimits().announced())


def test_the_rule_of_values() -> None:
    assert values.__doc__ is not None
    written = [line for line in values.__doc__.splitlines() if line.startswith("|")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in written]
    assert table(WIRE, *rows[0]) == rows[2:]


def test_the_dtypes() -> None:
    rows = table(WIRE, "dtype", "msgpack column", "JSON column", "value in a row")
    assert {name for row in rows for name in code(row[0])} == set(DTYPES)


# --- the configuration

HUB_STRUCTS: dict[str, type[msgspec.Struct]] = {
    "api_server.": ApiServer,
    "hub.": HubSection,
    "hub.tokens[].": BotToken,
    "hub.publishers[].": PublisherEntry,
    "hub.upstreams[].": Upstream,
    "hub.ledger.": Ledger,
    "hub.limits.": Limits,
    "hub.memory.": Memory,
    "hub.slow.": Slow,
    "hub.compression.": Compression,
    "hub.throttle.": Throttle,
}
CONSUMER_STRUCTS: dict[str, type[msgspec.Struct]] = {
    "external_message_consumer.": ConsumerConfig,
    "external_message_consumer.producers[].": ProducerConfig,
    "publish.": PublishConfig,
}


def told_keys() -> dict[str, str]:
    """Every key of the tables of operations.md, and its default as written."""
    keys: dict[str, str] = {}
    for header, rows in tables(OPERATIONS):
        if header[:2] == ("key", "default"):
            for row in rows:
                for key in code(row[0]):
                    assert key not in keys, key
                    keys[key] = row[1]
    return keys


@pytest.mark.parametrize(("prefix", "struct"), [*HUB_STRUCTS.items(), *CONSUMER_STRUCTS.items()])
def test_every_key_and_its_default(prefix: str, struct: type[msgspec.Struct]) -> None:
    told = {
        key.removeprefix(prefix): default
        for key, default in told_keys().items()
        if key.startswith(prefix) and not set(key.removeprefix(prefix)) & {".", "["}
    }
    fields = {f.name: f for f in msgspec.structs.fields(struct) if f.name != "raw"}
    assert set(told) == set(fields)
    for name, field in fields.items():
        if field.required:
            generated = prefix == "api_server." or (prefix, name) == ("hub.tokens[].", "name")
            assert generated or told[name] == "required", prefix + name
        elif not isinstance(field.default, msgspec.Struct):
            default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            assert json.loads(told[name]) == _plain(default), prefix + name


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | frozenset) else value


def test_no_key_is_told_that_does_not_exist() -> None:
    known = {
        prefix + field.name
        for prefix, struct in (*HUB_STRUCTS.items(), *CONSUMER_STRUCTS.items())
        for field in msgspec.structs.fields(struct)
    }
    assert {
        key for key in told_keys() if key.startswith(("api_server.", "hub.", consumer.config.SECTION))
    } <= known


def test_the_settings_of_the_paper_bot() -> None:
    assert paper.__doc__ is not None
    rows = [line.strip("|").split("|") for line in paper.__doc__.splitlines() if line.startswith("| ")][1:]
    settings = {name.strip() for row in rows for name in row[0].split(",")}
    others = ("api_server.", "hub.", "publish.", consumer.config.SECTION)
    assert {key for key in told_keys() if not key.startswith(others)} == settings


def configurations() -> list[Any]:
    return [
        pytest.param(text, id=f"{path.name}[{i}]")
        for path in DOCUMENTS
        for i, text in enumerate(blocks(path, "json"))
    ]


@pytest.mark.parametrize("text", configurations())
def test_a_configuration_that_is_shown_loads_without_a_warning(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    sections = json5.loads(text)
    env = {"HOME": str(tmp_path)}
    assert sections
    if consumer.config.SECTION in sections:
        assert consumer.config.load(path, env).producers
    if {"hub", "api_server"} & set(sections):
        assert hub.config.load(path, env).warnings == ()


def test_the_variables_that_are_shown_are_read(tmp_path: Path) -> None:
    (text,) = [block for block in blocks(OPERATIONS, "sh") if "TRADEWIRE__HUB" in block]
    shown = dict(re.findall(r"^(TRADEWIRE__\w+)=(\S+|'.*')", text, re.MULTILINE))
    assert len(shown) == len(text.strip().splitlines())
    secret = tmp_path / "secret"
    secret.write_text("s" * 40)
    env = {
        "HOME": str(tmp_path),
        **{k: str(secret) if k.endswith("_FILE") else v.strip("'") for k, v in shown.items()},
    }
    config = hub.config.load(None, env)
    assert config.api_server.listen_port == 8081
    assert config.hub.limits.connections == 500
    assert [entry.name for entry in config.hub.publishers] == ["alpha"]
    path = tmp_path / "consumer.json"
    path.write_text(json.dumps({"external_message_consumer": {"producers": [{"name": "hub", "host": "h"}]}}))
    assert consumer.config.load(path, env).producers[0].ws_token == "s" * 40


# --- statistics


def leaves(figures: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in figures.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


async def figures(tmp_path: Path) -> dict[str, Any]:
    """What Hub.statistics() joins, without a socket."""
    raw = {"name": "maker", "host": "127.0.0.1", "ws_token": "t" * 40}
    source = {"api_server": {**SECRETS, "ws_token": "w" * 40}, "hub": {"upstreams": [raw]}}
    config = hub.config.load(source, {"HOME": str(tmp_path)})
    node = Node(SqliteLog(tmp_path / "ledger"))
    await node.start()
    try:
        authenticator = Authenticator(config, lambda: 0)
        edge = MessageEndpoint(node, authenticator).statistics()
        upstream = relay.Relay(node, config.hub.upstreams[0]).statistics()
        intake = PublishIntake(
            node.publish_and_wait, items=1, body_bytes=1, pending_bytes=1, body_timeout_s=1
        )
        rest = msgspec.to_builtins(intake.statistics())
        passing = PassThrough(None, None, None).statistics()  # type: ignore[arg-type]
        bot = FreqtradeBot("maker", host="127.0.0.1", port=1, username="u", password="p")
        bodies = Bodies(body_bytes=1, pending_bytes=1, timeout_s=1)
        return {
            **node.statistics(),
            "edge": edge,
            "auth": authenticator.statistics(),
            "sockets": Waiting(1).statistics(),
            "answers": Unsent().statistics(),
            "rest": rest,
            "passing": msgspec.to_builtins(passing),
            "bots": {"*": bot.statistics()},
            "rest_bodies": msgspec.to_builtins(bodies.statistics()),
            "bots_in_process": {"*": InProcess("alpha", None).statistics()},  # type: ignore[arg-type]
            "relays": {"*": upstream},
            "reconciliation": {"*": await reconciled(node)},
            "in_process_waiting": 0,
        }
    finally:
        await node.stop()


async def reconciled(node: Node) -> dict[str, int]:
    registry = BotRegistry(node, default_bot="maker", version=VERSION, now_ms=node.clock.now_ms)
    reconciler = Reconciler(node, registry)
    # It only publishes, so nobody can be asked; the attempt is counted.
    with pytest.raises(BotError):
        await reconciler.run("maker")
    return reconciler.statistics()["maker"]


def test_the_statistics(tmp_path: Path) -> None:
    told = {name for row in table(OPERATIONS, "name", "meaning") for name in code(row[0])}
    assert told == set(leaves(asyncio.run(figures(tmp_path))))
    joined = ast.parse((ROOT / "hub" / "server.py").read_text())
    expected = {
        "edge",
        "auth",
        "rest",
        "rest_bodies",
        "passing",
        "bots",
        "bots_in_process",
        "relays",
        "reconciliation",
        "in_process_waiting",
    }
    assert expected <= {
        node.value
        for node in ast.walk(joined)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


@pytest.mark.parametrize(
    ("first", "figures_of"), [("of a topic", TopicFigures), ("of a session", SessionFigures)]
)
def test_the_figures_of_topics_and_sessions(first: str, figures_of: type[msgspec.Struct]) -> None:
    told = [name for row in table(OPERATIONS, first, "meaning") for name in code(row[0])]
    assert sorted(told) == sorted(figures_of.__struct_fields__)


# --- what is shown runs

SHOWN = {"simple_producer.py": 0, "simple_consumer.py": 1}


@pytest.mark.parametrize(("name", "position"), SHOWN.items())
def test_the_readme_shows_the_examples_themselves(name: str, position: int) -> None:
    assert blocks(README, "python")[position] == (ROOT / "examples" / name).read_text()


def test_the_readme_shows_no_other_python() -> None:
    assert len(blocks(README, "python")) == len(SHOWN)


def test_what_the_readme_shows_runs_with_the_configuration_that_it_shows(tmp_path: Path) -> None:
    shown = json5.loads(blocks(README, "json")[0])
    shown["api_server"] |= {**SECRETS, "listen_port": 0}
    reader, publisher = shown["api_server"]["ws_token"], shown["hub"]["publishers"][0]["token"]
    for name, text in zip(("produce.py", "follow.py"), blocks(README, "python"), strict=True):
        (tmp_path / name).write_text(text)
    with server.Hub(shown) as running:
        url = running.url.replace("http", "ws", 1)
        produced = script(tmp_path / "produce.py", TRADEWIRE_URL=url, TRADEWIRE_TOKEN=publisher)
        assert produced.wait(40) == 0
        followed = script(tmp_path / "follow.py", TRADEWIRE_PORT=str(running.port), TRADEWIRE_TOKEN=reader)
        try:
            assert followed.stdout is not None
            assert followed.stdout.readline().startswith("alpha BTC/USDT: 100 candles")
        finally:
            followed.kill()
            followed.wait(10)
            for process in (produced, followed):
                assert process.stdout is not None
                process.stdout.close()
    readme = README.read_text()
    assert f"TRADEWIRE_TOKEN={publisher} .venv/bin/python examples/simple_producer.py" in readme
    assert f"TRADEWIRE_TOKEN={reader} .venv/bin/python examples/simple_consumer.py" in readme


def script(path: Path, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_recipes_for_acting_once_are_whole_bots() -> None:
    recipes = [block for block in blocks(OPERATIONS, "python") if "class CopyBot" in block]
    assert len(recipes) == 2
    for recipe in recipes:
        names: dict[str, Any] = {}
        exec(recipe, names)
        assert isinstance(names["CopyBot"](), LocalBot)


def commands() -> list[str]:
    """Every command line of the shell blocks, without the variables before it and the comment behind it."""
    lines = [line for path in DOCUMENTS for block in blocks(path, "sh") for line in block.splitlines()]
    bare = [re.sub(r"^(\w+=\S* )*", "", line.partition("  #")[0].strip()) for line in lines]
    return [line for line in bare if line and not line.startswith("TRADEWIRE__")]


def test_every_make_target_that_is_shown_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {line.split()[1] for line in commands() if line.startswith("make ")}
    for path in DOCUMENTS:
        named |= set(re.findall(r"`make ([\w-]+)", path.read_text()))
    assert {"run", "test"} <= named <= targets


@pytest.mark.parametrize("command", [c for c in commands() if "/tradewire-" in c])
def test_every_command_and_option_that_is_shown_exists(command: str) -> None:
    words = command.split()
    apps = {"tradewire-hub": hub.__main__.app, "tradewire-consumer": consumer.__main__.app}
    found: Any = typer.main.get_command(apps[words.pop(0).rpartition("/")[2]])
    while hasattr(found, "commands"):
        found = found.commands[words.pop(0)]
    options = {word for word in words if word.startswith("--")}
    assert options <= {name for parameter in found.params for name in parameter.opts}


# --- the rest


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S), re.M
    )
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_has_a_target(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        other = path.parent / file if file else path
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_document_names_a_place_of_one_machine(path: Path) -> None:
    assert not re.search(r"(?<![\w.])/(work|tmp|root|home)/", path.read_text())


def test_every_file_of_the_repository_that_is_named_exists() -> None:
    for path in DOCUMENTS:
        for name in re.findall(
            r"`((?:hub|consumer|tests|examples|benchmarks|docs)/[\w/.-]+)`", path.read_text()
        ):
            assert (ROOT / name).exists(), f"{path.name}: {name}"


def test_every_dependency_has_its_reason_and_its_keeper() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    declared = dict.fromkeys(_names(project["project"]["dependencies"]), "base")
    for extra in extras:
        declared |= dict.fromkeys(_names(extras[extra]) - {"tradewire"}, extra)
    rows = table(ARCHITECTURE, "package", "for", "why", "newest release", "kept by")
    assert {row[0]: row[1] for row in rows} == declared
    assert all(all(row) for row in rows)
    (line,) = re.findall(r"^For development: ([^.]*)\.", ARCHITECTURE.read_text(), re.MULTILINE)
    assert set(line.split(", ")) == _names(project["dependency-groups"]["dev"])


def _names(requirements: Sequence[str]) -> set[str]:
    return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}  # type: ignore[index]


def test_the_order_of_imports_is_the_one_that_is_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (layers,) = [c["layers"] for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers"]
    (shown,) = re.findall(r"`(__main__ > [^`]*)`", ARCHITECTURE.read_text())
    assert shown == " > ".join(layer.replace("hub.", "") for layer in layers)


def test_the_changelog_has_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["version"] == VERSION
    assert f"## [{VERSION}]" in CHANGELOG.read_text()
