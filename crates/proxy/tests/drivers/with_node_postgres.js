// node-postgres with its own cursors and COPY streams. A case is an asynchronous generator, as stage.py tells.
'use strict'
const fs = require('fs')
const readline = require('readline')
const { once } = require('events')
const pg = require('pg')
const Cursor = require('pg-cursor')
const { from: copyFrom, to: copyTo } = require('pg-copy-streams')

// Longer than a case takes to its next step on a busy machine.
const LIMIT = 50_000
const INSERT = "insert into said (session, what) values (current_setting('application_name'), $1)"
const STORY = `select string_agg(what || '@' || side, ' ' order by at) from said
  where session = current_setting('application_name')`
const LOCKS = `select string_agg(objid || ' ' || mode, ', ' order by objid) from pg_locks
  where locktype = 'advisory' and pid = pg_backend_pid()`
const SETTINGS = `select concat_ws(', ', current_user, current_setting('work_mem'), current_setting('my.own'),
  current_setting('search_path'), current_setting('TimeZone'), current_setting('default_transaction_isolation'))`
const WAIT = 'select pg_advisory_xact_lock_shared(4711)'
const LONG = "copy (select who(), repeat('x', 1000) from generate_series(1, 60000)) to stdout"

async function connect(name) {
  const config = {
    host: '127.0.0.1',
    port: Number(process.env.PROXY_PORT),
    user: 'scram_user',
    password: process.env.PROXY_PASSWORD,
    database: 'postgres',
    application_name: name,
    pipeline: name === 'in_pipeline',
  }
  if (name === 'tls_and_channel_binding') {
    config.ssl = { ca: fs.readFileSync(process.env.PROXY_CA) }
    config.enableChannelBinding = true
  }
  const client = new pg.Client(config)
  // The server's last word is an event when nobody waits for an answer.
  client.on('error', () => {})
  await client.connect()
  return client
}

const range = (from, to) => Array.from({ length: to - from }, (_, n) => from + n)
const say = (c, what) => c.query(INSERT, [what])

async function value(c, text, values) {
  const { rows } = await c.query({ text, values, rowMode: 'array' })
  return rows[0][0]
}

function same(got, want) {
  if (JSON.stringify(got) !== JSON.stringify(want)) {
    throw new Error(`${JSON.stringify(got)} instead of ${JSON.stringify(want)}`)
  }
}

const sides = (name) => `select string_agg(side, ', ' order by side) from (
  select side || ' ' || count(*) as side from said where session = '${name}' group by side) s`

const inside = {
  async *in_transaction(c) {
    await c.query('begin')
    await say(c, 'before')
    yield
    await say(c, 'during')
    same(await value(c, STORY), 'before@blue during@blue')
    await c.query('commit')
    yield
    await c.query('begin')
    await say(c, 'after')
    same(await value(c, STORY), 'before@blue during@blue after@green')
    await c.query('commit')
  },

  // Every query has its own Sync: what is sent while clients are held follows what is under way.
  async *in_pipeline(c) {
    const ask = (n) => value(c, "select $1::int || ' ' || who()", [n])
    const wait = c.query(WAIT)
    const answers = range(0, 20).flatMap((n) => [ask(n), say(c, `early ${n}`)])
    yield
    answers.push(...range(20, 40).flatMap((n) => [ask(n), say(c, `late ${n}`)]))
    await wait
    yield
    const rows = (await Promise.all(answers)).filter((row) => typeof row === 'string').map((row) => row.split(' '))
    same(rows.map(([n]) => Number(n)), range(0, 40))
    const order = rows.map(([, side]) => side)
    same(order, [...order].sort())
    await say(c, 'after')
    same(await value(c, "select side from said where what = 'after' and session = 'in_pipeline'"), 'green')
    same(await value(c, "select count(*) from said where session = 'in_pipeline'"), '41')
  },

  async *in_copy_in(c) {
    const stream = c.query(copyFrom('copy said (session, what) from stdin'))
    for (const n of range(0, 1000)) stream.write(`in_copy_in\tline ${n}\n`)
    yield
    for (const n of range(1000, 2000)) stream.write(`in_copy_in\tline ${n}\n`)
    stream.end()
    await once(stream, 'finish')
    yield
    await say(c, 'after')
    same(await value(c, sides('in_copy_in')), 'blue 2000, green 1')
  },

  async *in_copy_out(c) {
    const stream = c.query(copyTo(LONG))
    await once(stream, 'readable')
    yield
    let text = ''
    for await (const data of stream) text += data.toString('latin1').replaceAll('x', '')
    same(text === 'blue\t\n'.repeat(60000), true)
    yield
    same(await value(c, 'select who()'), 'green')
  },

  // A portal that is asked for ten rows at a time, with no transaction around it.
  async *with_cursor(c) {
    const query = "select n || who() as n from generate_series(1, $1::int) n"
    const cursor = c.query(new Cursor(query, [1000]))
    const rows = await cursor.read(10)
    yield
    rows.push(...(await cursor.read(2000)))
    await cursor.close()
    same(rows.map((row) => row.n), range(1, 1001).map((n) => `${n}blue`))
    yield
    const again = c.query(new Cursor(query, [100]))
    same((await again.read(200)).map((row) => row.n), range(1, 101).map((n) => `${n}green`))
    await again.close()
  },
}

const atRest = {
  async *idle(c) {
    await say(c, 'before')
    yield
    await say(c, 'after')
    same(await value(c, STORY), 'before@blue after@green')
  },

  async *with_held_cursor(c) {
    await c.query('declare kept cursor with hold for select generate_series(1, 1000)')
    yield
    const end = await c.query('fetch kept').then(() => 'none', (error) => error.code)
    same(end, '57P01')
  },

  async *with_prepared_statements(c) {
    const ask = (n) => value2(c, { name: `statement ${n}`, text: `select $1::int + ${n} || who()`, values: [n] })
    for (const n of range(0, 50)) same(await ask(n), `${n + n}blue`)
    same(await value(c, 'select count(*) from pg_prepared_statements'), '50')
    yield
    for (const n of range(0, 50)) same(await ask(n), `${n + n}green`)
    same(await value(c, 'select count(*) from pg_prepared_statements'), '50')
  },

  async *with_listen(c) {
    const news = []
    let heard
    const both = new Promise((resolve) => (heard = resolve))
    c.on('notification', ({ payload }) => news.push(payload) === 2 && heard())
    await c.query('listen news')
    yield
    await both
    same(news, ['from blue', 'from green'])
    same(await value(c, 'select who()'), 'green')
  },

  async *with_advisory_locks(c) {
    for (const lock of ['lock(1)', 'lock(1)', 'lock_shared(2)', 'lock(3)', 'unlock(3)']) {
      await c.query(`select pg_advisory_${lock}`)
    }
    same(await value(c, LOCKS), '1 ExclusiveLock, 2 ShareLock')
    yield
    same(await value(c, `select who() || ' ' || (${LOCKS})`), 'green 1 ExclusiveLock, 2 ShareLock')
    const unlocked = []
    for (const _ of range(0, 3)) unlocked.push(await value(c, 'select pg_advisory_unlock(1)'))
    same(unlocked, [true, true, false])
  },

  async *with_settings(c) {
    await c.query("set work_mem = '7MB'; set search_path = pg_catalog, public; set timezone = 'Asia/Tokyo'")
    await c.query('set session characteristics as transaction isolation level repeatable read; set role reader')
    await c.query("select set_config('my.own', $1, false)", ["it's"])
    const want = "reader, 7MB, it's, pg_catalog, public, Asia/Tokyo, repeatable read"
    same(await value(c, SETTINGS), want)
    yield
    same(await value(c, SETTINGS), want)
    same(await value(c, 'select who()'), 'green')
  },

  async *tls_and_channel_binding(c) {
    same([c.connection.stream.encrypted, c.saslSession ?? null], [true, null])
    await say(c, 'before')
    yield
    await say(c, 'after')
    same(await value(c, STORY), 'before@blue after@green')
    same(await value(c, 'select ssl from pg_stat_ssl where pid = pg_backend_pid()'), true)
  },
}

async function value2(c, query) {
  const { rows } = await c.query({ ...query, rowMode: 'array' })
  return rows[0][0]
}

function step(play) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('it goes no further')), LIMIT)
  })
  return Promise.race([play.next(), late]).finally(() => clearTimeout(timer))
}

async function last(play) {
  try {
    return (await step(play)).done ? 'ok' : 'it has not ended'
  } catch (error) {
    return String(error)
  }
}

const tell = (text) => process.stdout.write(`${text.replace(/\s+/g, ' ')}\n`)

async function main() {
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]()
  const hear = async (wanted) => same((await lines.next()).value, wanted)
  const plays = {}
  for (const [name, play] of Object.entries({ ...inside, ...atRest })) {
    plays[name] = play(await connect(name))
    await step(plays[name]).catch((error) => tell(`${name}: ${error}`))
  }
  tell('ready')
  await hear('held')
  const ends = {}
  for (const name of Object.keys(atRest)) ends[name] = last(plays[name])
  await hear('finish')
  for (const name of Object.keys(inside)) {
    await step(plays[name]).catch((error) => tell(`${name}: ${error}`))
    ends[name] = last(plays[name])
  }
  tell('finished')
  for (const [name, end] of Object.entries(ends)) tell(`${name}: ${await end}`)
  tell('done')
  process.exit(0)
}

main()
