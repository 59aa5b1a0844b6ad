/** What goes wrong around the commands: each is a clear sentence with a way out and its exit code, and nothing is lost. */
import { mkdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { copyHome, run, sealpost, useWorld } from '@sealpost/testing/clients/cli-world'
import { createTestDatabase } from '@sealpost/testing/components/test-database'
import { createDatabaseDoor } from '@sealpost/testing/components/database-door'
import { startRelay, startSealpost } from '@sealpost/testing/components/programs'
import { pairTwoDevices } from '@sealpost/testing/clients/two-devices'

const world = useWorld()

/** Pairings of one home, one after another. */
let paired: Promise<unknown> = Promise.resolve()
function addDevice(name: string): Promise<string> {
  const added = paired.then(() => world.addDevice(name))
  paired = added.catch(() => undefined)
  return added
}

/** A sentence, and in the next line what to do. */
const SENTENCE = /^sealpost: \S.*\n {2}\S/m

test('another relay at the address of the known one: 5, nothing is sent; the right one gets it later', async () => {
  const { port } = world.relay
  const database = await createTestDatabase()
  await world.relay.stop()
  try {
    using other = await startRelay(join(world.folder, 'impostor'), { DATABASE_URL: database.url }, port)
    const refused = await run(['send', '--home', world.laptop, '--stream', 'impostor'], { input: 'for the right one' })
    expect(refused.code).toBe(5)
    expect(refused.stderr).toMatch(SENTENCE)
    expect(refused.stderr).toMatch(/key/)
    other.kill('SIGTERM')
    await other.ended
  } finally {
    await world.relay.start()
    await database.drop()
  }
  const status = await sealpost(['status', '--home', world.laptop])
  expect(status.stderr).toMatch(/sent 1 from the outbox/)
  const tail = await sealpost(['tail', '--home', world.phone, '--stream', 'impostor', '--count', '1'])
  expect(tail.stdout.toString()).toBe('for the right one')
})

test('a device that was revoked while it was away: 4, by whom and on which day', async () => {
  const tablet = await world.addDevice('lost tablet')
  await sealpost(['revoke', 'lost tablet', '--home', world.laptop])
  const day = new Date().toISOString().slice(0, 10)
  for (const args of [['send'], ['tail', '--idle-exit', '1'], ['status']]) {
    const ended = await run([...args, '--home', tablet], { input: 'x' })
    expect(ended.code).toBe(4)
    expect(ended.stderr).toContain(`this device was revoked by "laptop" on ${day}`)
    expect(ended.stderr).toMatch(SENTENCE)
  }
})

test.concurrent('a home copied to a second machine and used in turn: nothing is lost, nothing comes twice', {
  timeout: 60_000,
}, async () => {
  const original = await addDevice('original')
  const send = (home: string, text: string): ReturnType<typeof run> => run(['send', '--home', home, '--stream', 'turns'], { input: text })
  expect((await send(original, '1\n')).code).toBe(0)
  const copy = await copyHome(original, join(world.folder, 'second machine'))
  for (const [home, text] of [
    [copy, '2\n'],
    [original, '3\n'],
    [copy, '4\n'],
    [original, '5\n'],
  ] as const) {
    const ended = await send(home, text)
    // what is not sent at once waits, and says so
    if (ended.code !== 0) {
      expect(ended.stderr).toMatch(SENTENCE)
      expect(await run(['status', '--home', home])).toMatchObject({ code: 0 })
    }
  }
  const tail = await sealpost(['tail', '--home', world.phone, '--stream', 'turns', '--idle-exit', '1'])
  expect(tail.stdout.toString()).toBe('1\n2\n3\n4\n5\n')
})

test.concurrent('a home copied to a second machine and used at once: who is put out says so, and what it had goes out later', {
  timeout: 60_000,
}, async () => {
  const original = await addDevice('one of two')
  const copy = await copyHome(original, join(world.folder, 'two of two'))
  const ended = await Promise.all(
    [original, copy].map((home, i) => {
      const input = Array.from({ length: 300 }, (_unused, line) => `${i}:${line}\n`).join('')
      return run(['send', '--home', home, '--stream', 'at-once', '--lines'], { input })
    }),
  )
  for (const { code, stderr } of ended) {
    expect([0, 3, 75]).toContain(code)
    if (code !== 0) expect(stderr).toMatch(SENTENCE)
  }
  for (const home of [original, copy]) await run(['send', '--home', home, '--stream', 'at-once'], { input: 'end\n' })
  for (const home of [original, copy]) await run(['status', '--home', home])
  const tail = await sealpost(['tail', '--home', world.laptop, '--stream', 'at-once', '--from', 'start', '--idle-exit', '1'])
  const lines = tail.stdout.toString().split('\n').slice(0, -1)
  for (const i of [0, 1]) {
    const own = lines.filter((line) => line.startsWith(`${i}:`))
    expect(own).toEqual(Array.from({ length: 300 }, (_unused, line) => `${i}:${line}`))
  }
})

test.concurrent('a port that is taken: 3, and the port is named', async () => {
  const taken = createServer()
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
  const { port } = taken.address() as { port: number }
  const database = await createTestDatabase()
  const ended = await run(['serve', '--port', String(port), '--data', join(world.folder, 'no port')], {
    env: { DATABASE_URL: database.url },
  })
  taken.close()
  await database.drop()
  expect(ended.code).toBe(3)
  expect(ended.stderr).toContain(`port ${port} of 127.0.0.1 is taken`)
  expect(ended.stderr).toMatch(SENTENCE)
  expect(ended.stdout.length).toBe(0)
})

test.concurrent('a data folder of a newer version: 74, and it stays as it is', async () => {
  const data = join(world.folder, 'newer data')
  await mkdir(data, { mode: 0o700 })
  await writeFile(join(data, 'version'), '99\n')
  const ended = await run(['serve', '--port', '0', '--data', data])
  expect(ended.code).toBe(74)
  expect(ended.stderr).toMatch(/newer version/)
  expect(ended.stderr).toMatch(SENTENCE)
})

test.concurrent('a database that is down at the start: 69, without its password', async () => {
  const ended = await run(['serve', '--port', '0', '--data', join(world.folder, 'no database')], {
    env: { DATABASE_URL: 'postgres://someone:secret-word@127.0.0.1:1/none', SEALPOST_DATABASE_WAIT_S: '1' },
  })
  expect(ended.code).toBe(69)
  expect(ended.stderr).toMatch(SENTENCE)
  expect(ended.stderr + ended.stdout.toString()).not.toContain('secret-word')
})

test.concurrent('a database of another relay: 5, and it stays its own', async () => {
  const database = await createTestDatabase()
  const env = { DATABASE_URL: database.url }
  {
    using first = await startRelay(join(world.folder, 'first relay'), env)
    first.kill('SIGTERM')
    await first.ended
  }
  const ended = await run(['serve', '--port', '0', '--data', join(world.folder, 'second relay')], { env })
  await database.drop()
  expect(ended.code).toBe(5)
  expect(ended.stderr).toMatch(/secrets\.json/)
})

test.concurrent('a database that goes away later: the relay stays and is not ready, a send is kept, and arrives when it is back', {
  timeout: 60_000,
}, async ({ expect }) => {
  const database = await createTestDatabase()
  const door = await createDatabaseDoor(database.url)
  try {
    using relay = await startRelay(join(world.folder, 'relay'), { DATABASE_URL: door.url })
    const folder = join(world.folder, 'with a door')
    await mkdir(folder)
    const { laptop, phone } = await pairTwoDevices(relay.url, folder)
    using live = startSealpost(['tail', '--home', phone, '--count', '3'])
    await sealpost(['send', '--home', laptop], { input: 'before\n' })
    await live.printed(/before/)
    const readiness = async (path: string): Promise<number> => (await fetch(`${relay.url}${path}`)).status
    expect(await readiness('/readyz')).toBe(200)

    await door.shut()
    await expect.poll(() => readiness('/readyz'), { timeout: 10_000 }).toBe(503)
    expect(await readiness('/livez')).toBe(200)
    const kept = await run(['send', '--home', laptop], { input: 'meanwhile\n' })
    expect(kept.code).toBe(75)
    expect(kept.stderr).toMatch(/1 in the outbox/)
    expect(kept.stderr).toMatch(SENTENCE)
    expect(await readiness('/livez')).toBe(200)

    await door.open()
    await expect.poll(() => readiness('/readyz'), { timeout: 10_000 }).toBe(200)
    await sealpost(['send', '--home', laptop], { input: 'after\n' })
    expect((await live.ended).stdout.toString()).toBe('before\nmeanwhile\nafter\n')
    relay.kill('SIGTERM')
    expect((await relay.ended).code).toBe(0)
  } finally {
    await door.end()
    await database.drop()
  }
})
