"""psycopg 3, asynchronous, on the libpq it brings along."""

import asyncio

import psycopg

from stage import *


async def connect(name):
    options = {}
    if name == "tls_and_channel_binding":
        options = dict(sslmode="verify-full", sslrootcert=CA, channel_binding="require")
    return await psycopg.AsyncConnection.connect(
        host=HOST, port=PORT, user=USER, password=PASSWORD, dbname=DATABASE, application_name=name,
        autocommit=True, **options)


async def say(c, what):
    await c.execute(SAY % what)


async def value(c, query, *args, **options):
    return (await (await c.execute(query, *args, **options)).fetchone())[0]


async def story(c, want):
    same(await value(c, STORY), want)


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
    async with c.pipeline() as pipeline:
        async def stretch(what):
            cursors = []
            for n in range(20):
                cursors.append(await c.execute("select %s::int, who()", [n]))
                await say(c, f"{what} {n}")
            await pipeline.sync()
            return [await cursor.fetchone() for cursor in cursors]

        await c.execute(WAIT)
        before = asyncio.create_task(stretch("before"))
        yield
        same(await before, [(n, "blue") for n in range(20)])
        yield
        same(await stretch("after"), [(n, "green") for n in range(20)])
    same(await value(c, "select count(*) from said where session = 'in_pipeline'"), 40)


@inside
async def in_open_pipeline(c):
    """Answers without a Sync: the transaction is open although the server has said all it knows."""
    async with c.pipeline():
        await say(c, "before")
        same(await value(c, "select who()"), "blue")
        yield
        await say(c, "during")
        same(await value(c, "select who()"), "blue")
    yield
    async with c.pipeline():
        await say(c, "after")
        await story(c, "before@blue during@blue after@green")


@inside
async def in_copy_in(c):
    async with c.cursor() as cursor:
        async with cursor.copy("copy said (session, what) from stdin") as copy:
            for n in range(1000):
                await copy.write_row(("in_copy_in", f"line {n}"))
            yield
            for n in range(1000, 2000):
                await copy.write_row(("in_copy_in", f"line {n}"))
    yield
    await say(c, "after")
    same(await value(c, "select string_agg(side, ' ' order by side) from (select side || ' ' || count(*) as side "
                        "from said where session = 'in_copy_in' group by side) s"), "blue 2000 green 1")


@inside
async def in_copy_out(c):
    lines = 0
    async with c.cursor() as cursor:
        async with cursor.copy(LONG) as copy:
            for _ in range(10):
                lines += bytes(await copy.read()).count(b"blue\tx")
            yield
            async for data in copy:
                lines += bytes(data).count(b"blue\tx")
    same(lines, 60000)
    yield
    same(await value(c, "select who()"), "green")


@inside
async def with_cursor(c):
    async with c.transaction():
        async with c.cursor(name="stepwise") as cursor:
            await cursor.execute("select n, who() from generate_series(1, 1000) n")
            same(await cursor.fetchmany(10), [(n, "blue") for n in range(1, 11)])
            yield
            same(await cursor.fetchall(), [(n, "blue") for n in range(11, 1001)])
    yield
    async with c.transaction():
        async with c.cursor(name="stepwise") as cursor:
            await cursor.execute("select who()")
            same(await cursor.fetchall(), [("green",)])


@case
async def with_held_cursor(c):
    await c.execute("declare kept cursor with hold for select generate_series(1, 1000)")
    yield
    try:
        await c.execute("fetch kept")
    except psycopg.errors.AdminShutdown as error:
        same(error.sqlstate, "57P01")
    else:
        raise AssertionError("it was not ended")


@case
async def with_prepared_statements(c):
    c.prepared_max = 100
    for n in range(50):
        same(await value(c, f"select %s::int + {n} || who()", [n], prepare=True), f"{n + n}blue")
    same(await value(c, "select count(*) from pg_prepared_statements"), 50)
    yield
    for n in range(50):
        same(await value(c, f"select %s::int + {n} || who()", [n], prepare=True), f"{n + n}green")
    same(await value(c, "select count(*) from pg_prepared_statements"), 50)


@case
async def with_listen(c):
    await c.execute("listen news")
    yield
    heard = [n.payload async for n in c.notifies(timeout=30, stop_after=2)]
    same(heard, ["from blue", "from green"])
    same(await value(c, "select who()"), "green")


@case
async def with_advisory_locks(c):
    for lock in ["lock(1)", "lock(1)", "lock_shared(2)", "lock(3)", "unlock(3)"]:
        await c.execute(f"select pg_advisory_{lock}")
    same(await value(c, LOCKS), "1 ExclusiveLock, 2 ShareLock")
    yield
    same(await value(c, "select who() || ' ' || (" + LOCKS + ")"), "green 1 ExclusiveLock, 2 ShareLock")
    same([await value(c, "select pg_advisory_unlock(1)") for _ in range(3)], [True, True, False])


@case
async def with_settings(c):
    await c.execute("set work_mem = '7MB'; set search_path = pg_catalog, public; set timezone = 'Asia/Tokyo'")
    await c.execute("set session characteristics as transaction isolation level repeatable read; set role reader")
    await c.execute("select set_config('my.own', 'it''s', false)")
    want = "reader, 7MB, it's, pg_catalog, public, Asia/Tokyo, repeatable read"
    same(await value(c, SETTINGS), want)
    yield
    same(await value(c, SETTINGS), want)
    same(c.info.parameter_status("TimeZone"), "Asia/Tokyo")
    same(await value(c, "select who()"), "green")


@case
async def tls_and_channel_binding(c):
    same(c.pgconn.ssl_in_use, True)
    await say(c, "before")
    yield
    await say(c, "after")
    await story(c, "before@blue after@green")
    same(await value(c, "select ssl from pg_stat_ssl where pid = pg_backend_pid()"), True)


run(connect)
