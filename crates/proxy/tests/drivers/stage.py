"""The part of every session that is the same for each Python driver: it steps on, plays and says how it went.

A case is an asynchronous generator. It yields when its session is in its state, one that holds an open transaction
yields again when that has ended, and what follows runs after the switch, begun while clients are held.
"""

import asyncio
import os
import sys

HOST = "127.0.0.1"
PORT = int(os.environ["PROXY_PORT"])
CA = os.environ["PROXY_CA"]
USER = "scram_user"
PASSWORD = os.environ["PROXY_PASSWORD"]
DATABASE = "postgres"

SAY = "insert into said (session, what) values (current_setting('application_name'), '%s')"
STORY = """select string_agg(what || '@' || side, ' ' order by at) from said
    where session = current_setting('application_name')"""
LOCKS = """select string_agg(objid || ' ' || mode, ', ' order by objid) from pg_locks
    where locktype = 'advisory' and pid = pg_backend_pid()"""
SETTINGS = """select concat_ws(', ', current_user, current_setting('work_mem'), current_setting('my.own'),
    current_setting('search_path'), current_setting('TimeZone'), current_setting('default_transaction_isolation'))"""
# A round trip that ends when the test lets go of the lock.
WAIT = "select pg_advisory_xact_lock_shared(4711)"
# More than all the buffers between a server and a client hold.
LONG = "copy (select who(), repeat('x', 1000) from generate_series(1, 60000)) to stdout"

# Seconds that a case may take to its next step on a busy machine.
LIMIT = 50

CASES = []
INSIDE = set()


def case(play):
    """A session that is at rest while clients are held."""
    CASES.append(play)
    return play


def inside(play):
    """A session that has to be waited for."""
    INSIDE.add(play.__name__)
    return case(play)


def same(got, want):
    if got != want:
        raise AssertionError(f"{got!r} instead of {want!r}")


async def line(wanted):
    got = await asyncio.to_thread(sys.stdin.readline)
    same(got.strip(), wanted)


def tell(text):
    print(" ".join(text.split()), flush=True)


async def step(play):
    await asyncio.wait_for(anext(play), LIMIT)


async def last(play):
    try:
        await step(play)
    except StopAsyncIteration:
        return "ok"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "it has not ended"


async def main(connect):
    plays = {}
    for play in CASES:
        plays[play.__name__] = play(await connect(play.__name__))
        try:
            await step(plays[play.__name__])
        except Exception as error:
            tell(f"{play.__name__}: {type(error).__name__}: {error}")
            raise
    tell("ready")
    await line("held")
    ends = {name: asyncio.create_task(last(play)) for name, play in plays.items() if name not in INSIDE}
    await line("finish")
    for name in [name for name in plays if name in INSIDE]:
        try:
            await step(plays[name])
        except Exception as error:
            tell(f"{name}: finish: {type(error).__name__}: {error}")
        ends[name] = asyncio.create_task(last(plays[name]))
    tell("finished")
    for name, end in ends.items():
        tell(f"{name}: {await end}")
    tell("done")


def run(connect):
    asyncio.run(main(connect))
