"""asyncpg. It has no channel binding, so its encrypted session logs in by SCRAM-SHA-256 alone; and it never leaves a
pipeline without its Sync: what it has in flight are the rows of `executemany`."""

import asyncio
import ssl

import asyncpg

from stage import *


async def connect(name):
    options = dict(ssl=False)
    if name == "tls_and_channel_binding":
        options = dict(ssl=ssl.create_default_context(cafile=CA))
    return await asyncpg.connect(
        host=HOST, port=PORT, user=USER, password=PASSWORD, database=DATABASE,
        server_settings={"application_name": name}, **options)


async def say(c, what):
    await c.execute(SAY % what)


async def story(c, want):
    same(await c.fetchval(STORY), want)


@case
async def idle(c):
    await say(c, "before")
    yield
    await say(c, "after")
    await story(c, "before@blue after@green")


@inside
async def in_transaction(c):
    async with c.transaction():
        await say(c, "before")
        yield
        await say(c, "during")
        async with c.transaction():
            await story(c, "before@blue during@blue")
    yield
    async with c.transaction():
        await say(c, "after")
        await story(c, "before@blue during@blue after@green")


@inside
async def in_pipeline(c):
    insert = "insert into said (session, what) select 'in_pipeline', $1 from (" + WAIT + ") w"
    before = asyncio.create_task(c.executemany(insert, [(f"before {n}",) for n in range(20)]))
    yield
    await before
    yield
    await c.executemany(insert, [(f"after {n}",) for n in range(20)])
    sides = await c.fetch("select side, count(*) from said where session = 'in_pipeline' group by side order by side")
    same([tuple(side) for side in sides], [("blue", 20), ("green", 20)])


@inside
async def in_copy_in(c):
    half, rest = asyncio.Event(), asyncio.Event()

    async def lines():
        for n in range(1000):
            yield f"in_copy_in\tline {n}\n".encode()
        half.set()
        await rest.wait()
        for n in range(1000, 2000):
            yield f"in_copy_in\tline {n}\n".encode()

    copy = asyncio.create_task(c.copy_to_table("said", columns=["session", "what"], source=lines()))
    await half.wait()
    yield
    rest.set()
    same(await copy, "COPY 2000")
    yield
    await say(c, "after")
    sides = await c.fetch("select side, count(*) from said where session = 'in_copy_in' group by side order by side")
    same([tuple(side) for side in sides], [("blue", 2000), ("green", 1)])


@inside
async def in_copy_out(c):
    begun, rest, lines = asyncio.Event(), asyncio.Event(), 0

    async def take(data):
        nonlocal lines
        lines += data.count(b"blue\tx")
        begun.set()
        await rest.wait()

    query = LONG.removeprefix("copy (").removesuffix(") to stdout")
    copy = asyncio.create_task(c.copy_from_query(query, output=take))
    await begun.wait()
    yield
    rest.set()
    same((await copy, lines), ("COPY 60000", 60000))
    yield
    same(await c.fetchval("select who()"), "green")


@inside
async def with_cursor(c):
    async with c.transaction():
        cursor = await c.cursor("select n, who() from generate_series(1, $1) n", 1000)
        rows = await cursor.fetch(10)
        yield
        rows += await cursor.fetch(2000)
        same([tuple(row) for row in rows], [(n, "blue") for n in range(1, 1001)])
    yield
    async with c.transaction():
        rows = [tuple(row) async for row in c.cursor("select n, who() from generate_series(1, $1) n", 200)]
        same(rows, [(n, "green") for n in range(1, 201)])


@case
async def with_held_cursor(c):
    await c.execute("declare kept cursor with hold for select generate_series(1, 1000)")
    yield
    try:
        await c.execute("fetch kept")
    except asyncpg.ConnectionDoesNotExistError as error:
        # It makes its own of a last word that no ReadyForQuery follows.
        same("this session holds a cursor WITH HOLD (kept)" in str(error), True)
    else:
        raise AssertionError("it was not ended")


@case
async def with_prepared_statements(c):
    statements = [await c.prepare(f"select $1::int + {n} || who()") for n in range(50)]
    same([await s.fetchval(n) for n, s in enumerate(statements)], [f"{n + n}blue" for n in range(50)])
    # And those that it keeps unasked.
    same(await c.fetchval("select $1::text || who()", "kept "), "kept blue")
    yield
    same([await s.fetchval(n) for n, s in enumerate(statements)], [f"{n + n}green" for n in range(50)])
    same(await c.fetchval("select $1::text || who()", "kept "), "kept green")


@case
async def with_listen(c):
    news = asyncio.Queue()
    await c.add_listener("news", lambda connection, pid, channel, payload: news.put_nowait(payload))
    yield
    same([await asyncio.wait_for(news.get(), 30) for _ in range(2)], ["from blue", "from green"])
    same(await c.fetchval("select who()"), "green")


@case
async def with_advisory_locks(c):
    for lock in ["lock(1)", "lock(1)", "lock_shared(2)", "lock(3)", "unlock(3)"]:
        await c.execute(f"select pg_advisory_{lock}")
    same(await c.fetchval(LOCKS), "1 ExclusiveLock, 2 ShareLock")
    yield
    same(await c.fetchval("select who() || ' ' || (" + LOCKS + ")"), "green 1 ExclusiveLock, 2 ShareLock")
    same([await c.fetchval("select pg_advisory_unlock($1)", 1) for _ in range(3)], [True, True, False])


@case
async def with_settings(c):
    await c.execute("set work_mem = '7MB'; set search_path = pg_catalog, public; set timezone = 'Asia/Tokyo'")
    await c.execute("set session characteristics as transaction isolation level repeatable read; set role reader")
    await c.fetchval("select set_config('my.own', $1, false)", "it's")
    want = "reader, 7MB, it's, pg_catalog, public, Asia/Tokyo, repeatable read"
    same(await c.fetchval(SETTINGS), want)
    yield
    same(await c.fetchval(SETTINGS), want)
    same(c.get_settings().TimeZone, "Asia/Tokyo")
    same(await c.fetchval("select who()"), "green")


@case
async def tls_and_channel_binding(c):
    await say(c, "before")
    yield
    await say(c, "after")
    await story(c, "before@blue after@green")
    same(await c.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()"), True)


run(connect)
