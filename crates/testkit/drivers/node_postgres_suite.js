// Runs node-postgres's own tests of a server (argument 1: where they are; further ones: only files whose names contain one of
// these), each file by itself as its makefile does, and prints what became of each file and of each test that it names.

const { spawnSync } = require('child_process')
const fs = require('fs')
const path = require('path')

const [place, ...only] = process.argv.slice(2)
const ENDS = { '✔': 'ok', 'FAILED!': 'failed', '? - SKIPPED': 'skipped' }

const files = fs
  .readdirSync(path.join(place, 'test/integration'), { recursive: true })
  .filter((file) => file.endsWith('-tests.js'))
  .filter((file) => only.length === 0 || only.some((part) => part.startsWith(`${file}: `) || file.includes(part)))
  .sort()

for (const file of files) {
  const run = spawnSync(process.execPath, [path.join('test/integration', file)], {
    cwd: place,
    encoding: 'utf8',
    env: { ...process.env, NODE_NO_WARNINGS: '1', PGTESTNOSSL: '1' },
    timeout: 60000,
  })
  for (const line of run.stdout.split('\n')) {
    const end = Object.keys(ENDS).find((end) => line.endsWith(` ${end}`))
    if (end) console.log(['@@', `${file}: ${line.slice(0, -end.length).trim()}`, ENDS[end]].join('\t'))
  }
  console.log(['@@', file, run.status === 0 ? 'ok' : 'failed'].join('\t'))
  if (run.status !== 0) console.error(`${file}: ${run.status ?? run.signal}\n${run.stdout}${run.stderr}`)
}
